"""Tests of `docker-compose.yml` and `Dockerfile`: read as files, and their commands run as processes."""

import os
import re
import shlex
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.children import Child, start_child
from api.client import Client
from api.commands.platform import _commands as platform_commands
from api.local_platform import is_ready
from api.local_services import free_port
from store.settings import Settings

ROOT = Path(__file__).parents[1]
PLATFORM = ("api", "worker", "beat")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The parsed compose file."""
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert isinstance(document, dict)
    return document


def dockerfile() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile with their arguments."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def test_compose_has_the_five_services_each_with_a_health_check(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {*PLATFORM, "postgres", "redis"}
    for name, service in compose["services"].items():
        assert service["healthcheck"]["test"], name


def test_compose_names_only_real_settings(compose: dict[str, Any]) -> None:
    for name in PLATFORM:
        for variable in compose["services"][name]["environment"]:
            assert variable.removeprefix("LCO_").lower() in Settings.model_fields, (name, variable)


def test_services_wait_for_healthy_services(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for other, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}, (name, other)
            assert other in compose["services"]


def test_named_volumes_are_declared(compose: dict[str, Any]) -> None:
    used = {volume.split(":")[0] for service in compose["services"].values() for volume in service.get("volumes", [])}
    assert used == set(compose["volumes"])


def test_redis_never_evicts_and_keeps_its_queue(compose: dict[str, Any]) -> None:
    command = " ".join(compose["services"]["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_a_stopping_worker_has_time_to_checkpoint(compose: dict[str, Any]) -> None:
    grace = compose["services"]["worker"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) >= Settings().stop_seconds + 20


def test_the_worker_has_a_gpu_and_its_queue(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"]
    assert worker["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    queues = worker["command"][worker["command"].index("-Q") + 1]
    assert queues == worker["environment"]["LCO_QUEUES"] == "lco.cpu,lco.gpu"


def test_only_loopback_is_published(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_lco_up_runs_the_same_celery_commands(compose: dict[str, Any]) -> None:
    settings = Settings(broker_url="redis://localhost", slots=2, queues="lco.cpu,lco.gpu")
    commands = platform_commands(settings, Namespace(no_worker=False, celery=True))
    for name in ("worker", "beat"):
        assert commands[name] == ["python", "-m", *compose["services"][name]["command"]]


def test_every_copied_file_exists() -> None:
    sources = [source for instruction, text in dockerfile() if instruction == "COPY" for source in text.split()[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source


def test_every_package_of_the_wheel_is_copied() -> None:
    import tomllib

    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    copied = {source for instruction, text in dockerfile() if instruction == "COPY" for source in text.split()[:-1]}
    assert set(packages) <= copied


def test_the_install_lines_work_in_a_fresh_environment(fresh_environment: Path, tmp_path: Path) -> None:
    copy = tmp_path / "image"
    copy.mkdir()
    for instruction, text in dockerfile():
        if instruction == "COPY":
            for source in text.split()[:-1]:
                subprocess.run(["cp", "-r", str(ROOT / source), str(copy)], check=True)
        elif instruction == "RUN" and "pip install" in text:
            environment = {
                **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
                "PATH": f"{fresh_environment / 'bin'}:/usr/bin:/bin",
                "PIP_DISABLE_PIP_VERSION_CHECK": "1",
                "TORCH_INDEX": "",
            }
            if not os.environ.get("PIP_EXTRA_INDEX_URL"):
                text = text.replace('PIP_EXTRA_INDEX_URL="$TORCH_INDEX" ', "")
            done = subprocess.run(["sh", "-c", text], cwd=copy, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    found = subprocess.run(
        [fresh_environment / "bin" / "python", "-c", "import api.cli; print(api.cli.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.startswith(str(fresh_environment)), "the image would not use what it installed"


@pytest.fixture
def stack(
    compose: dict[str, Any], postgres_database: str, redis_url: str, tmp_path: Path
) -> Iterator[tuple[Settings, dict[str, Child]]]:
    """api, worker and beat of the compose file as processes, in the order of their dependencies."""
    values = {
        "LCO_DATABASE_URL": postgres_database,
        "LCO_BROKER_URL": redis_url,
        "LCO_DATA_DIR": str(tmp_path / "data"),
        "LCO_HOST": "127.0.0.1",
        "LCO_GPUS": "",
    }
    port = free_port()
    children: dict[str, Child] = {}
    try:
        for name in PLATFORM:
            service = compose["services"][name]
            assert values.keys() >= {v for v in service["environment"] if v not in ("LCO_ALLOWED_HOSTS", "LCO_QUEUES")}
            environment = {
                **os.environ,
                # The image has its console scripts and its code on the path; `lco` and `celery` are this environment's.
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                **{variable: values.get(variable, "127.0.0.1,localhost") for variable in service["environment"]},
                "LCO_PORT": str(port),
            }
            if name == "worker":
                environment["LCO_QUEUES"] = service["environment"]["LCO_QUEUES"]
            command = [shlex.quote(word) for word in service["command"]]
            log = tmp_path / f"{name}.log"
            children[name] = start_child(
                ["/bin/sh", "-c", f"exec {' '.join(command)}"], log=log, env=environment, cwd=tmp_path
            )
            if name == "api":
                deadline = time.monotonic() + 60
                while not is_ready(f"http://127.0.0.1:{port}"):
                    assert children["api"].is_running(), children["api"].tail()
                    assert time.monotonic() < deadline, children["api"].tail()
                    time.sleep(0.05)
        yield Settings(data_dir=tmp_path / "data", url=f"http://127.0.0.1:{port}"), children
    finally:
        for child in reversed(children.values()):
            child.stop(30)


def test_the_very_commands_of_the_compose_file_finish_a_job(
    stack: tuple[Settings, dict[str, Child]], tiny_experiment: dict[str, Any]
) -> None:
    settings, children = stack
    warm_up = next(job for job in tiny_experiment["jobs"] if job["kind"] == "sft")
    with Client(settings=settings) as client:
        job = client.wait(client.submit(warm_up).id, timeout_seconds=90, poll_seconds=0.1)
        logs = {name: child.tail() for name, child in children.items()}
        assert job.status == "succeeded", logs
        [run] = client.runs(job=job.id)
        [attempt] = client.attempts(run.id)
    assert attempt.dispatcher == "celery"
    assert all(child.is_running() for child in children.values()), logs
