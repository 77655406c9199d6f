"""Metrics reach the trackers that people have: once each, after outages and kills as well."""

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from store import queue
from store.database import Database
from store.models.mirror import Mirror
from store.models.record import Event
from store.queue import Claim
from store.rows import Collected, ResultRow
from store.settings import Settings
from store.sources import spec_of
from store.states import Outcome
from store.submission import submit_job
from store.tracker_config import TrackerConfig, missing_package, tracker_configs
from tests.worker.conftest import wait_until
from worker.mirror import Mirroring, open_tracker
from worker.trackers.base import Card, Points

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture
def claim(database: Database, settings: Settings) -> Claim:
    """A run that a worker holds."""
    config = {"policy": {"name": "llama"}, "prompts": {"name": "sums"}, "steps": 10}
    document = {"kind": "sft", "name": "warm-up", "seeds": [3], "config": config, "metadata": {"team": "blue"}}
    with database.write() as session:
        submit_job(session, spec_of(document), settings)
    with database.write() as session:
        found = queue.claim(
            session,
            worker_id=UUID(int=1),
            queues=["lco.cpu"],
            labels=[],
            free_gpus=[],
            dispatcher="local",
            host="here",
        )
    assert found is not None
    return found


@pytest.fixture
def log(database: Database, claim: Claim) -> Callable[..., None]:
    """Writes the metrics of some steps, as a supervisor does."""

    def write(*steps: int) -> None:
        with database.write() as session:
            queue.append_metrics(session, claim, [(s, {"train/loss": 1.0 / s, "train/none": None}) for s in steps])

    return write


def finish(database: Database, claim: Claim, collected: Collected | None = None) -> None:
    with database.write() as session:
        queue.start(session, claim, 1)
        queue.finish(session, claim, Outcome.SUCCEEDED, 0, collected=collected)


def mirrored(database: Database, target: str) -> Mirroring:
    (config,) = tracker_configs(target)
    return Mirroring(database, config, open_tracker(config))


def losses(directory: Path) -> list[tuple[int, float]]:
    """(step, value) as TensorBoard reads them."""
    (folder,) = {path.parent for path in directory.rglob("*tfevents*")}
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, round(event.value, 4)) for event in events.Scalars("train/loss")]


def test_tensorboard_reads_each_point_once_after_a_kill(
    database: Database, claim: Claim, log: Callable[..., None], tmp_path: Path
) -> None:
    first = mirrored(database, f"tensorboard:{tmp_path}")
    log(1, 2, 3)
    assert first.round()
    assert losses(tmp_path) == [(1, 1.0), (2, 0.5)]  # the last step may still grow
    with database.write() as session:  # killed before it noted how far it was
        session.get_one(Mirror, (claim.run_id, first.config.name)).step = 1
    log(4, 5)
    second = mirrored(database, f"tensorboard:{tmp_path}")
    assert second.round()
    finish(database, claim)
    assert second.round() and second.round()
    assert losses(tmp_path) == [(step, round(1 / step, 4)) for step in range(1, 6)]
    with database.read() as session:
        row = session.get_one(Mirror, (claim.run_id, second.config.name))
    assert (row.step, row.is_done, row.error) == (5, True, "")


def test_tensorboard_shows_configuration_and_tags(
    database: Database, claim: Claim, log: Callable[..., None], tmp_path: Path
) -> None:
    log(1, 2)
    mirrored(database, f"tensorboard:{tmp_path}").round()
    (path,) = tmp_path.rglob("*tfevents*")
    assert path.parent.relative_to(tmp_path).as_posix().startswith("warm-up/warm-up-seed-3-")
    content = path.read_bytes()
    for text in (b"optimizer.learning_rate", b"_hparams_/session_start_info", b"tag.team", b"run/text_summary"):
        assert text in content


def test_mlflow_has_points_parameters_tags_and_results(
    database: Database, claim: Claim, log: Callable[..., None], tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    mirroring = mirrored(database, f"mlflow:{uri}")
    log(1, 2, 3)
    assert mirroring.round()
    with database.write() as session:  # killed before it noted anything: everything is sent again
        session.delete(session.get_one(Mirror, (claim.run_id, mirroring.config.name)))
    log(4)
    result = ResultRow(benchmark="sums", metric="pass@1", decoding="greedy", eval_seed=None, value=0.75, num_examples=4)
    finish(database, claim, Collected(results=[result]))
    again = mirrored(database, f"mlflow:{uri}")
    assert again.round() and again.round()
    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("warm-up").experiment_id])
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted((point.step, round(point.value, 4)) for point in history) == [
        (step, round(1 / step, 4)) for step in range(1, 5)
    ]
    assert (run.info.status, run.info.run_name) == ("FINISHED", "warm-up-seed-3")
    assert run.data.metrics["eval/sums/pass_1/greedy"] == 0.75
    assert run.data.params["steps"] == "10"
    assert run.data.tags["lco.team"] == "blue"


def test_weights_and_biases_offline_holds_each_point_once(
    database: Database, claim: Claim, log: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(1, 2)
    finish(database, claim)
    code = (
        "import sys; from pathlib import Path; from store.database import Database, make_engine\n"
        "from store.settings import Settings; from tests.worker.test_mirror import mirrored\n"
        "database = Database(make_engine(Settings(data_dir=Path(sys.argv[1]))))\n"
        "one = mirrored(database, 'wandb:lco'); assert one.round() and one.round(); one.tracker.close()"
    )
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "PYTHONPATH": os.getcwd()}
    data_dir = Path(str(database.engine.url.database)).parent
    subprocess.run([sys.executable, "-c", code, str(data_dir)], check=True, env=environment, cwd=tmp_path, timeout=60)
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    content = path.read_bytes()
    assert content.count(b"train/loss") >= 2
    assert b"warm-up-seed-3" in content and b"team:blue" in content
    assert records(content) > 3


def records(content: bytes) -> int:
    """Number of whole records in a file of W&B."""
    position, count = 7, 0
    while position + 7 <= len(content):
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        position += 7 + length
        count += kind == 1
    return count


class Away:
    """A tracker that is away until it is told otherwise."""

    def __init__(self) -> None:
        self.is_away = True
        self.points: list[tuple[int, float]] = []

    def write(self, card: Card, points: Points, external_id: str, first_step: int) -> str:
        if self.is_away:
            raise ConnectionError("the token of https://me:secret@tracker is hidden")
        self.points += [(step, values["train/loss"]) for step, values in points]
        return "x"

    def end(self, card: Card, external_id: str, *, succeeded: bool) -> None:
        self.points.append((-1, float(succeeded)))

    def close(self) -> None:
        return


def test_an_outage_is_told_once_and_loses_nothing(database: Database, claim: Claim, log: Callable[..., None]) -> None:
    tracker = Away()
    mirroring = Mirroring(database, TrackerConfig("mlflow", "http://away"), tracker)
    log(1, 2)
    assert not mirroring.round() and not mirroring.round()
    assert mirroring.wait_seconds > 2
    finish(database, claim)
    tracker.is_away = False
    assert mirroring.round() and mirroring.round()
    assert tracker.points == [(1, 1.0), (2, 0.5), (-1, 1.0)]
    assert mirroring.wait_seconds == 1
    with database.read() as session:
        warnings = [event for event in session.query(Event) if event.level == "warning"]
    assert [event.data["reason"] for event in warnings] == ["ConnectionError"]
    assert "secret" not in json.dumps([event.data for event in warnings]) + warnings[0].message


@pytest.mark.parametrize("text", ["wandb", "wandb:", "tensorbord:x", "mlflow:a,mlflow:a"])
def test_a_wrong_setting_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ValueError, match="LCO_TRACKERS: entry"):
        Settings(trackers=text)


def test_a_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'lco-platform[wandb]'" in missing_package(TrackerConfig("wandb", "lco"))


def test_the_process_mirrors_until_it_is_told_to_stop(
    database: Database, claim: Claim, log: Callable[..., None], tmp_path: Path
) -> None:
    log(1, 2)
    finish(database, claim)
    data_dir = Path(str(database.engine.url.database)).parent
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LCO_")}
    environment = {**kept, "LCO_DATA_DIR": str(data_dir), "LCO_TRACKERS": f"tensorboard:{tmp_path / 'board'}"}
    process = subprocess.Popen([sys.executable, "-m", "worker.mirror"], env=environment)
    try:
        assert wait_until(lambda: _is_done(database, claim), 20)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert losses(tmp_path / "board") == [(1, 1.0), (2, 0.5)]


def _is_done(database: Database, claim: Claim) -> bool:
    with database.read() as session:
        return session.query(Mirror).filter_by(run_id=claim.run_id, is_done=True).count() == 1
