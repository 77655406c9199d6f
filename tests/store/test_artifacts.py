import os

import pytest

from lco.manifest import write_manifest
from store.artifacts import (
    artifact_path,
    data_file,
    earlier_directories,
    model_directory,
    published_output,
    relative_path,
    resolved_config,
    run_directory,
)
from store.errors import Invalid
from store.ids import encode_id
from store.repositories.records import Checkpoints
from store.rows import CheckpointRow, Collected
from store.states import Outcome


def publish(rig, taken):
    """Writes what a run of its kind leaves, and finishes it."""
    directory = run_directory(rig.settings, taken.run_id, taken.attempt)
    if taken.kind == "pairs":
        directory.mkdir(parents=True)
        (directory / "pairs.jsonl").write_text("{}\n")
        write_manifest(directory, step=1, outputs={"pairs": "pairs.jsonl"}, include=["pairs.jsonl"])
        models = []
    else:
        (directory / "model").mkdir(parents=True)
        (directory / "model" / "weights").write_text("w")
        write_manifest(directory, step=1, outputs={"model": "model"}, include=["model"])
        path = relative_path(rig.settings, directory / "model")
        models = [CheckpointRow(step=1, path=path, manifest_sha256="0" * 64, size_bytes=1)]
    rig.finish(taken, collected=Collected(models=models))
    return directory


def resolve(rig, taken):
    with rig.database.read() as session:
        return resolved_config(session, rig.settings, taken)


def test_inputs_that_are_jobs_become_the_outputs_of_their_runs_of_the_same_seed(sqlite_rig):
    rig = sqlite_rig
    rig.submit_experiment(rig.spec("sft", seeds=[0, 1]), rig.spec("pairs", seeds=[0, 1]), rig.spec("dpo", seeds=[0, 1]))
    directories = {}
    for _ in range(4):
        taken = rig.started()
        directories[taken.kind, taken.seed] = publish(rig, taken)
    taken = rig.started()
    config = resolve(rig, taken)
    assert config["policy"] == str(directories["sft", taken.seed] / "model")
    assert config["pairs"] == str(directories["pairs", taken.seed] / "pairs.jsonl")
    assert config["seed"] == taken.seed


def test_the_seed_of_the_run_is_set_and_the_rest_of_the_config_kept(sqlite_rig):
    sqlite_rig.submit("sft", seeds=[9], config={"steps": 3})
    taken = sqlite_rig.take()
    config = resolve(sqlite_rig, taken)
    assert (config["seed"], config["steps"], "seed" in taken.spec["config"]) == (9, 3, False)


def test_checkpoints_models_and_data_become_absolute_paths(sqlite_rig):
    rig = sqlite_rig
    (rig.settings.models / "tiny").mkdir(parents=True)
    (rig.settings.data / "math").mkdir(parents=True)
    (rig.settings.data / "math" / "train.jsonl").write_text("{}\n")
    rig.submit("sft", config={"policy": "model:tiny", "prompts": {"name": "gsm8k", "path": "data:math/train.jsonl"}})
    taken = rig.started()
    config = resolve(rig, taken)
    assert config["policy"] == str(rig.settings.models / "tiny")
    assert config["prompts"]["path"] == str(rig.settings.data / "math" / "train.jsonl")
    directory = publish(rig, taken)
    with rig.database.read() as session:
        (checkpoint,) = Checkpoints(session).page().rows
    rig.submit("evaluation", config={"policy": encode_id("ckpt", checkpoint.id)})
    assert resolve(rig, rig.take())["policy"] == str(directory / "model")


def test_the_only_run_of_a_job_gives_its_output_to_every_seed(sqlite_rig):
    rig = sqlite_rig
    sft = rig.submit("sft", seeds=[0])
    directory = publish(rig, rig.started())
    rig.submit("evaluation", seeds=[5], config={"policy": encode_id("job", sft.id)})
    assert resolve(rig, rig.take())["policy"] == str(directory / "model")


def test_a_damaged_output_is_refused_and_its_pointer_named(sqlite_rig):
    rig = sqlite_rig
    rig.submit_experiment(rig.spec("sft"), rig.spec("evaluation"))
    directory = publish(rig, rig.started())
    (directory / "model" / "weights").write_text("x")
    with pytest.raises(Invalid, match="differs from its manifest") as refused:
        resolve(rig, rig.take())
    assert refused.value.pointer == "/config/policy"


def test_an_output_that_was_never_published_is_refused(sqlite_rig):
    sqlite_rig.submit()
    taken = sqlite_rig.take()
    with pytest.raises(ValueError, match="has published nothing"):
        published_output(sqlite_rig.settings, taken.run_id, 0, "model")
    with pytest.raises(ValueError, match="no readable manifest"):
        published_output(sqlite_rig.settings, taken.run_id, 1, "model")


def test_a_manifest_cannot_point_out_of_its_directory(sqlite_rig):
    sqlite_rig.submit()
    taken = sqlite_rig.take()
    directory = run_directory(sqlite_rig.settings, taken.run_id, 1)
    directory.mkdir(parents=True)
    write_manifest(directory, step=1, outputs={"model": "../../elsewhere"}, include=[])
    with pytest.raises(ValueError, match="no path below"):
        published_output(sqlite_rig.settings, taken.run_id, 1, "model")


def test_directories_of_earlier_attempts_are_given_newest_first(sqlite_rig):
    rig = sqlite_rig
    rig.submit()
    for _ in range(3):
        taken = rig.started()
        rig.finish(taken, Outcome.STOPPED)
    for attempt in (1, 3):
        run_directory(rig.settings, taken.run_id, attempt).mkdir(parents=True)
    taken = rig.take()
    assert [directory.name for directory in earlier_directories(rig.settings, taken)] == ["3", "1"]


@pytest.mark.parametrize("relative", ["", "/etc/passwd", "../x", "a/../../x", "a/\x00"])
def test_paths_of_rows_stay_below_the_artifact_root(settings, relative):
    with pytest.raises(ValueError, match="no path below"):
        artifact_path(settings, relative)


def test_a_path_of_the_artifact_root_survives_the_way_through_a_row(settings):
    path = settings.artifacts / "runs" / "r" / "1"
    assert artifact_path(settings, relative_path(settings, path)) == path
    with pytest.raises(ValueError, match="not in the subpath"):
        relative_path(settings, settings.data_dir / "elsewhere")


def test_data_files_are_regular_files_reached_without_links(settings, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.jsonl").write_text("s")
    root = settings.data
    (root / "real").mkdir(parents=True)
    (root / "real" / "file.jsonl").write_text("{}")
    (root / "linked").symlink_to(outside)
    (root / "real" / "link.jsonl").symlink_to(outside / "secret.jsonl")
    os.mkfifo(root / "real" / "pipe.jsonl")
    assert data_file(settings, "real/file.jsonl") == root / "real" / "file.jsonl"
    for relative in ("linked/secret.jsonl", "real/link.jsonl", "real/pipe.jsonl", "real", "absent", "../outside"):
        with pytest.raises(ValueError, match=r"no data file|no path below"):
            data_file(settings, relative)


def test_a_model_is_a_directory_below_the_models_root(settings, tmp_path):
    (settings.models / "tiny").mkdir(parents=True)
    (settings.models / "file").write_text("")
    (settings.models / "escape").symlink_to(tmp_path)
    assert model_directory(settings, "tiny") == settings.models / "tiny"
    for name in ("file", "escape", "absent", "../artifacts"):
        with pytest.raises(ValueError, match=r"no imported model|no path below"):
            model_directory(settings, name)
