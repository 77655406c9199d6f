"""Each kind of job from `Client` to results through real processes, embedded and on PostgreSQL, Celery and Redis."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from api.client import Client
from api.demo_report import write_report
from api.local_platform import LocalPlatform
from api.schemas import AttemptRead, RunRead
from store.database import Database, make_engine
from store.fsck import Finding, check
from store.settings import Settings
from tests import servers

pytestmark = pytest.mark.timeout(400)

MODES = ("embedded", "services")
DISPATCHERS = {"embedded": "local", "services": "celery"}
_ENOUGH_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Played:
    """What a platform made of the experiment."""

    status: str
    runs: dict[str, RunRead]
    """By the name of the job."""
    attempts: dict[str, list[AttemptRead]]
    report: dict[str, Any]
    directory: Path
    """Where the report lies."""
    memory_maps: dict[str, str]
    """Command line -> mapped files, of every process of the platform after the last run."""
    logs: str
    findings: list[Finding]
    """Of `lco fsck`, while the platform was up."""


def play(directory: Path, experiment: dict[str, Any], environment: dict[str, str]) -> Played:
    """Runs an experiment on a platform of its own, seen only through its API."""
    data_dir = directory / "var"
    environment = {**environment, "LCO_PORT": "0", "LCO_POLL_SECONDS": "0.05"}
    platform = LocalPlatform(data_dir, with_services="LCO_BROKER_URL" in environment, environment=environment)
    with platform, Client(platform.url, settings=Settings(data_dir=data_dir)) as client:
        submitted = client.submit_experiment(experiment)
        status = client.wait(submitted.id, timeout_seconds=_ENOUGH_SECONDS, poll_seconds=0.2).status
        runs = {run.job_name: run for run in client.runs(experiment=submitted.id)}
        return Played(
            status=status,
            runs=runs,
            attempts={name: list(client.attempts(run.id)) for name, run in runs.items()},
            report=write_report(client, submitted.id, directory / "report.json"),
            directory=directory,
            memory_maps=memory_maps([child.process.pid for child in platform.children.values()]),
            logs="\n".join(child.tail() for child in platform.children.values()),
            findings=findings(Settings(data_dir=data_dir, database_url=environment.get("LCO_DATABASE_URL", ""))),
        )


def findings(settings: Settings) -> list[Finding]:
    """What breaks an invariant of the store."""
    database = Database(make_engine(settings))
    try:
        return list(check(database, settings))
    finally:
        database.dispose()


def memory_maps(pids: list[int]) -> dict[str, str]:
    """Mapped files of processes and all their descendants."""
    found = {}
    for parent in map(psutil.Process, pids):
        for process in [parent, *parent.children(recursive=True)]:
            name = " ".join(process.cmdline())
            found[f"{process.pid} {name}"] = Path(f"/proc/{process.pid}/maps").read_text()
    return found


@pytest.fixture(scope="module")
def played(
    tiny_experiment: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, postgres_url: str, redis_url: str
) -> Iterator[dict[str, Played]]:
    """The same experiment on both platforms, side by side."""
    with servers.new_database(postgres_url) as database_url, ThreadPoolExecutor() as threads:
        environments: dict[str, dict[str, str]] = {
            "embedded": {},
            "services": {"LCO_DATABASE_URL": database_url, "LCO_BROKER_URL": redis_url},
        }
        playing = {
            mode: threads.submit(play, tmp_path_factory.mktemp(mode), tiny_experiment, environments[mode])
            for mode in MODES
        }
        yield {mode: future.result() for mode, future in playing.items()}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["sft", "pairs", "dpo", "train", "evaluation"])
def test_a_job_of_each_kind_succeeds_at_its_first_attempt(played: dict[str, Played], mode: str, kind: str) -> None:
    [run] = [run for run in played[mode].runs.values() if run.kind == kind]
    assert (run.state, run.attempt) == ("succeeded", 1), (run.error, played[mode].logs)


@pytest.mark.parametrize("mode", MODES)
def test_attempts_name_what_dispatched_them(played: dict[str, Played], mode: str) -> None:
    attempts = [attempt for of_run in played[mode].attempts.values() for attempt in of_run]
    assert {attempt.dispatcher for attempt in attempts} == {DISPATCHERS[mode]}
    assert {attempt.outcome for attempt in attempts} == {"succeeded"}


@pytest.mark.parametrize("mode", MODES)
def test_every_invariant_of_the_store_holds(played: dict[str, Played], mode: str) -> None:
    assert played[mode].findings == []


def test_rows_and_completions_are_byte_equal_on_both_platforms(played: dict[str, Played]) -> None:
    embedded, services = (played[mode].report for mode in MODES)

    def rows(report: dict[str, Any]) -> bytes:
        plain = [{name: value for name, value in row.items() if name != "completions"} for row in report["rows"]]
        return json.dumps(sorted(plain, key=str)).encode()

    assert rows(embedded) == rows(services)
    assert embedded["table"] == services["table"]
    assert completions(played["embedded"]) == completions(played["services"])


def completions(played: Played) -> dict[str, bytes]:
    """File name -> bytes."""
    paths = {played.directory / row["completions"] for row in played.report["rows"]}
    assert paths
    return {path.name: path.read_bytes() for path in paths}


@pytest.mark.parametrize("mode", MODES)
def test_every_reported_number_can_be_recomputed_from_the_completions(played: dict[str, Played], mode: str) -> None:
    rows = [row for row in played[mode].report["rows"] if row["metric"] == "pass@1"]
    assert {(row["decoding"], row["eval_seed"]) for row in rows} == {("t1.0", 0), ("t1.0", 1), ("greedy", None)}
    for row in rows:
        lines = [json.loads(line) for line in (played[mode].directory / row["completions"]).read_text().splitlines()]
        assert {(line["train_seed"], line["eval_seed"]) for line in lines} == {(row["train_seed"], row["eval_seed"])}
        assert len(lines) == row["num_examples"] == 20
        assert row["value"] == pytest.approx(sum(line["correct"] for line in lines) / len(lines), abs=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_no_process_of_the_platform_ever_loads_torch(played: dict[str, Played], mode: str) -> None:
    maps = played[mode].memory_maps
    assert len(maps) >= {"embedded": 2, "services": 4}[mode], list(maps)
    for process, mapped in maps.items():
        assert "torch" not in mapped, process
