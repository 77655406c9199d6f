"""The Kubernetes example: read as files; what it names exists, and it says what the compose file says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from store.settings import Settings

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy" / "kubernetes"
OURS = ("api", "worker", "beat")


def documents() -> list[dict[str, Any]]:
    """Every object of the example."""
    return [one for path in sorted(FOLDER.glob("*.yaml")) for one in yaml.safe_load_all(path.read_text())]


def named(kind: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind by their names."""
    return {one["metadata"]["name"]: one for one in documents() if one["kind"] == kind}


def workloads() -> dict[str, dict[str, Any]]:
    """Everything that runs, by its name."""
    return named("Deployment") | named("StatefulSet")


def pods() -> dict[str, dict[str, Any]]:
    """The pods of every workload, by its name."""
    return {
        name: one["spec"]["template"]["spec"]
        for kind in ("Deployment", "StatefulSet")
        for name, one in named(kind).items()
    }


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every container with the name of its workload."""
    for name, pod in pods().items():
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            yield name, container


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The services of the compose file."""
    services: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return services


def test_it_has_the_services_of_the_compose_file(compose: dict[str, Any]) -> None:
    assert set(pods()) == set(compose)


def test_workers_and_beat_run_the_commands_of_the_compose_file(compose: dict[str, Any]) -> None:
    for name in ("worker", "beat"):
        (container,) = pods()[name]["containers"]
        assert container["command"] == compose[name]["command"]
    commands = [" ".join(container["command"]) for name, container in containers() if name == "api"]
    assert compose["api"]["command"][-1] == f"{commands[0]} && exec {commands[1]}"


def test_it_names_only_real_settings() -> None:
    variables = [
        entry["name"] for name, container in containers() if name in OURS for entry in container.get("env", [])
    ]
    variables += list(named("ConfigMap")["lco"]["data"])
    assert len(variables) >= 6
    for variable in variables:
        assert variable.removeprefix("LCO_").lower() in Settings.model_fields, variable
    assert not any(pods()[name].get("enableServiceLinks", True) for name in OURS), (
        "LCO_... of a service would be refused"
    )


def test_every_container_of_ours_has_its_settings_and_the_shared_volume() -> None:
    for name, container in containers():
        if name in OURS:
            assert container["envFrom"] == [{"configMapRef": {"name": "lco"}}, {"secretRef": {"name": "lco"}}]
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert named("ConfigMap")["lco"]["data"]["LCO_DATA_DIR"].startswith(mounts["data"])
            assert set(mounts) <= {volume["name"] for volume in pods()[name]["volumes"]}


def test_ports_and_probes_are_those_of_the_api() -> None:
    (container,) = pods()["api"]["containers"]
    assert container["ports"] == [{"name": "http", "containerPort": Settings.model_fields["port"].default}]
    assert [container[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")] == [
        "/readyz",
        "/healthz",
    ]
    labels = [one["spec"]["selector"]["matchLabels"] for one in workloads().values()]
    for name, service in named("Service").items():
        assert service["spec"]["selector"] in labels, name


def test_a_stopping_worker_has_time_to_checkpoint_and_its_gpus_are_those_it_hands_out() -> None:
    pod = pods()["worker"]
    assert pod["terminationGracePeriodSeconds"] >= Settings().stop_seconds + 20
    (container,) = pod["containers"]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    assert int(container["resources"]["limits"]["nvidia.com/gpu"]) == len(variables["LCO_GPUS"].split(","))
    assert variables["LCO_QUEUES"] == container["command"][container["command"].index("-Q") + 1]


def test_redis_never_evicts_and_keeps_its_queue(compose: dict[str, Any]) -> None:
    (container,) = pods()["redis"]["containers"]
    assert container["command"] == compose["redis"]["command"]
    assert container["image"] == compose["redis"]["image"]
    assert pods()["postgres"]["containers"][0]["image"] == compose["postgres"]["image"]
