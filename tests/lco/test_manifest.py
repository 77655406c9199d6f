"""Manifests: written last, verified file by file."""

import json

import pytest

from lco.manifest import MANIFEST, newest_checkpoint, read_manifest, write_durably, write_manifest


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"w" * 1000)
    (tmp_path / "rows").write_bytes(b"rows")
    write_manifest(tmp_path, step=7, outputs={"model": "model"}, include=["model", "rows"], beta_dpo=0.1)
    return tmp_path


def test_a_manifest_says_what_was_written(directory):
    manifest = read_manifest(directory)
    assert (manifest.step, manifest.outputs, manifest.details) == (7, {"model": "model"}, {"beta_dpo": 0.1})
    assert (manifest.size_bytes, manifest.directory, len(manifest.sha256)) == (1004, directory, 64)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "no manifest", "half a manifest", "another form"])
def test_damage_is_found_and_named(directory, damage):
    weights, manifest = directory / "model" / "weights", directory / MANIFEST
    match damage:
        case "flip":
            weights.write_bytes(b"x" + b"w" * 999)
        case "cut":
            weights.write_bytes(b"w" * 999)
        case "remove":
            weights.unlink()
        case "no manifest":
            manifest.unlink()
        case "half a manifest":
            manifest.write_bytes(manifest.read_bytes()[:40])
        case "another form":
            manifest.write_text(json.dumps(["files"]))
    with pytest.raises(ValueError, match="weights" if damage in ("flip", "cut", "remove") else "no readable manifest"):
        read_manifest(directory)


def test_equal_contents_have_equal_manifests(directory, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "model").mkdir()
    (other / "model" / "weights").write_bytes(b"w" * 1000)
    (other / "rows").write_bytes(b"rows")
    write_manifest(other, step=7, outputs={"model": "model"}, include=["model", "rows"], beta_dpo=0.1)
    assert read_manifest(other).sha256 == read_manifest(directory).sha256


def test_a_durable_write_replaces_the_whole_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_durably(path, b"a" * 100)
    write_durably(path, b"b")
    assert path.read_bytes() == b"b"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def checkpoint(run_dir, step):
    place = run_dir / "checkpoints" / f"step-{step:06d}"
    place.mkdir(parents=True)
    (place / "state").write_text(str(step))
    write_manifest(place, step=step, outputs={}, include=["state"])
    return place


def test_the_newest_checkpoint_is_the_one_with_most_steps_in_any_attempt(tmp_path):
    checkpoint(tmp_path / "1", 10)
    newest = checkpoint(tmp_path / "2", 30)
    checkpoint(tmp_path / "3", 20)
    found = newest_checkpoint([tmp_path / "3", tmp_path / "2", tmp_path / "1", tmp_path / "absent"])
    assert found is not None and (found.step, found.directory) == (30, newest)


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    checkpoint(tmp_path, 10)
    (checkpoint(tmp_path, 20) / "state").write_text("x")
    (checkpoint(tmp_path, 30) / MANIFEST).unlink()
    found = newest_checkpoint([tmp_path])
    assert found is not None and found.step == 10
    (tmp_path / "checkpoints/step-000010/state").unlink()
    assert newest_checkpoint([tmp_path]) is None


def test_steps_are_compared_as_numbers(tmp_path):
    checkpoint(tmp_path, 999_999)
    checkpoint(tmp_path, 1_000_000)
    found = newest_checkpoint([tmp_path])
    assert found is not None and found.step == 1_000_000
