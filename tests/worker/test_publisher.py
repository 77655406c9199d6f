"""Two machines that share a database and an object store, and no disk."""

import threading
from pathlib import Path

import pytest

from lco.manifest import newest_checkpoint, write_manifest
from store.fsck import check
from store.objects import ObjectStore, StoreUnavailable, is_here, is_published, object_store
from tests.worker.conftest import Platform, Supervision, wait_until
from tests.worker.test_supervisor import expected_link
from worker.publisher import KEPT_CHECKPOINTS, Publisher
from worker.reconciler import Reconciler


def machine(platform: Platform, url: str, name: str) -> Platform:
    """The platform as a machine with an artifact root of its own sees it."""
    place = platform.settings.data_dir / name
    settings = platform.settings.model_copy(update={"artifact_root": place, "artifact_store": url})
    return Platform(settings, platform.database)


def test_a_run_goes_on_where_another_machine_left_it(any_platform: Platform, s3_url: str) -> None:
    here, there = (machine(any_platform, s3_url, name) for name in ("here", "there"))
    run_id = here.submit(steps=60, seconds=0.05)
    supervisor = here.supervisor()
    first = Supervision(supervisor)
    store = object_store(here.settings)
    assert store is not None
    attempt = here.directory(run_id).relative_to(here.settings.artifacts).as_posix()
    assert wait_until(lambda: store.newest_checkpoint(attempt))
    supervisor.drain()
    assert first.is_over(60)
    assert Supervision(there.supervisor()).is_over(60)
    run = there.run(run_id)
    assert (run.state, run.attempt) == ("succeeded", 2)
    assert there.attempts(run_id)[1].resumed_from_step > 0
    assert there.link(run_id, 2) == expected_link(0, 60)
    assert newest_checkpoint([there.directory(run_id, 1)]) is not None, "nothing was fetched"


def test_what_a_run_published_is_read_on_the_other_machine(platform: Platform, s3_url: str) -> None:
    here, there = (machine(platform, s3_url, name) for name in ("here", "there"))
    run_id = here.submit()
    assert Supervision(here.supervisor()).is_over(60)
    assert not there.directory(run_id).exists()
    assert is_here(there.settings, there.directory(run_id))
    assert there.link(run_id, 1) == here.link(run_id, 1)
    assert list(check(there.database, there.settings)) == []


def test_a_run_does_not_count_as_done_before_the_store_has_it(
    platform: Platform, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = machine(platform, s3_url, "here")
    run_id = here.submit()
    is_away = threading.Event()
    is_away.set()
    push = ObjectStore.push

    def faulty(store: ObjectStore, root: Path, directory: Path) -> None:
        if is_away.is_set():
            raise StoreUnavailable("away")
        push(store, root, directory)

    monkeypatch.setattr(ObjectStore, "push", faulty)
    assert Supervision(here.supervisor()).is_over(60)
    run = here.run(run_id)
    assert (run.state, run.error_code, run.error_message) == ("retry_wait", "object_store", "away")
    is_away.clear()
    reconciler = Reconciler(here.settings, here.database)
    assert wait_until(lambda: (reconciler.tick(), here.state(run_id) == "queued")[1])
    assert Supervision(here.supervisor()).is_over(60)
    assert here.state(run_id) == "succeeded"
    assert is_published(here.settings, here.directory(run_id, 2))


def test_only_the_newest_checkpoints_stay_in_the_store(tmp_path: Path) -> None:
    from store.settings import Settings

    settings = Settings(data_dir=tmp_path, artifact_store=f"file://{tmp_path / 'store'}")
    store = object_store(settings)
    assert store is not None
    publisher = Publisher(store, settings.artifacts)
    for step in range(4):
        place = settings.artifacts / f"runs/run_a/1/checkpoints/step-{step:06d}"
        place.mkdir(parents=True)
        (place / "w").write_text(str(step))
        write_manifest(place, step=step, outputs={}, include=["w"])
        publisher.offer(place)
        name = place.relative_to(settings.artifacts).as_posix()
        assert wait_until(lambda name=name: store.has(name))  # type: ignore[misc]
    publisher.close(10)
    kept = [step for step in range(4) if store.has(f"runs/run_a/1/checkpoints/step-{step:06d}")]
    assert kept == [2, 3] and len(kept) == KEPT_CHECKPOINTS
