import json
import shutil
from pathlib import Path

import pytest

from lco.manifest import MANIFEST, read_manifest, write_manifest
from store.artifacts import dataset_file, resolved_config
from store.objects import StoreUnavailable, is_here, is_published, object_store
from store.repositories.datasets import Datasets
from store.settings import Settings
from store.uploads import keep_rows
from tests.store.test_artifacts import publish


@pytest.fixture(params=["file", "s3"])
def machines(request, tmp_path):
    """Settings of two machines that share nothing but an object store."""
    url = f"file://{tmp_path / 'store'}" if request.param == "file" else request.getfixturevalue("s3_url")
    return [Settings(data_dir=tmp_path / name, artifact_store=url) for name in ("here", "there")]


def written(settings: Settings, name: str = "runs/run_a/1", text: str = "weights") -> Path:
    directory = settings.artifacts / name
    (directory / "model" / "inner").mkdir(parents=True)
    (directory / "model" / "inner" / "w").write_text(text)
    write_manifest(directory, step=3, outputs={"model": "model"}, include=["model"])
    return directory


def elsewhere(settings: Settings, directory: Path, other: Settings) -> Path:
    return other.artifacts / directory.relative_to(settings.artifacts)


def test_what_one_machine_pushed_another_one_fetches_whole(machines):
    here, there = machines
    directory = written(here)
    object_store(here).push(here.artifacts, directory)
    target = elsewhere(here, directory, there)
    assert is_published(there, target) and not target.exists()
    assert is_here(there, target)
    assert read_manifest(target).sha256 == read_manifest(directory).sha256
    assert [path.name for path in target.parent.iterdir()] == ["1"]


def test_a_directory_joins_the_files_that_its_attempt_has_there_already(machines):
    here, there = machines
    directory = written(here)
    object_store(here).push(here.artifacts, directory)
    target = elsewhere(here, directory, there)
    (target / "checkpoints").mkdir(parents=True)
    assert is_here(there, target)
    assert sorted(path.name for path in target.iterdir()) == ["checkpoints", MANIFEST, "model"]


def test_without_its_manifest_a_directory_is_not_there(machines):
    here, there = machines
    directory = written(here)
    store = object_store(here)
    store.put(directory / "model/inner/w", "runs/run_a/1/model/inner/w")
    assert not is_here(there, elsewhere(here, directory, there))
    assert store.missing_files("runs/run_a/1") == [MANIFEST]


def test_a_damaged_object_is_found_and_nothing_appears(machines, tmp_path):
    here, there = machines
    directory = written(here)
    store = object_store(here)
    store.push(here.artifacts, directory)
    (tmp_path / "other").write_text("weighty")
    store.put(tmp_path / "other", "runs/run_a/1/model/inner/w")
    target = elsewhere(here, directory, there)
    with pytest.raises(ValueError, match="differs from its manifest"):
        is_here(there, target)
    assert not target.exists() and list(target.parent.iterdir()) == []


def test_removal_is_idempotent(machines):
    here, _ = machines
    directory = written(here)
    store = object_store(here)
    store.push(here.artifacts, directory)
    for _ in range(2):
        store.remove("runs/run_a/1")
        assert not store.has("runs/run_a/1")


def test_the_newest_whole_checkpoint_is_the_one_to_resume_from(machines):
    here, _ = machines
    store = object_store(here)
    for step in (2, 10):
        store.push(here.artifacts, written(here, f"runs/run_a/1/checkpoints/step-{step:06d}"))
    incomplete = written(here, "runs/run_a/1/checkpoints/step-000011")
    store.put(incomplete / "model/inner/w", "runs/run_a/1/checkpoints/step-000011/model/inner/w")
    assert store.newest_checkpoint("runs/run_a/1") == "runs/run_a/1/checkpoints/step-000010"
    assert store.newest_checkpoint("runs/run_b/1") is None


def test_paths_stay_inside_the_store(machines):
    with pytest.raises(ValueError, match="no path below"):
        object_store(machines[0]).has("../elsewhere")


def test_a_manifest_cannot_name_a_file_outside(machines, tmp_path):
    here, there = machines
    directory = written(here)
    document = json.loads((directory / MANIFEST).read_text())
    document["files"]["../../x"] = document["files"].pop("model/inner/w")
    (directory / MANIFEST).write_text(json.dumps(document))
    object_store(here).put(directory / MANIFEST, f"runs/run_a/1/{MANIFEST}")
    with pytest.raises(ValueError, match="no path below"):
        is_here(there, elsewhere(here, directory, there))


def test_data_sets_are_fetched_where_they_were_not_uploaded(machines, database, tmp_path):
    here, there = machines
    (tmp_path / "upload").write_text('{"a": 1}\n')
    with database.write() as session:
        dataset, _ = Datasets(session).add_version("rows", "jsonl", keep_rows(here, tmp_path / "upload", "jsonl"), {})
    assert dataset_file(there, dataset).read_text() == '{"a": 1}\n'
    (there.data / dataset.path).write_text("")
    with pytest.raises(ValueError, match="damaged"):
        dataset_file(there, dataset)


def test_an_input_is_resolved_on_a_machine_that_never_had_it(sqlite_rig, machines):
    here, there = machines
    sqlite_rig.settings = here
    sqlite_rig.submit_experiment(sqlite_rig.spec("sft"), sqlite_rig.spec("pairs"))
    directory = publish(sqlite_rig, sqlite_rig.started())
    object_store(here).push(here.artifacts, directory)
    shutil.rmtree(directory)
    taken = sqlite_rig.started()
    with sqlite_rig.database.read() as session:
        config = resolved_config(session, there, taken)
    assert Path(config["policy"]).is_relative_to(there.artifacts)
    assert (Path(config["policy"]) / "weights").read_text() == "w"


def test_a_store_that_is_away_is_said_to_be_away(tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    settings = Settings(data_dir=tmp_path, artifact_store="s3://bucket/away")
    with pytest.raises(StoreUnavailable, match="cannot be looked at"):
        is_published(settings, settings.artifacts / "runs/run_a/1")
