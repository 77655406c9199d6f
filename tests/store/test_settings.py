from pathlib import Path

import pytest

from store.settings import Settings


def test_empty_places_are_below_the_data_directory(tmp_path):
    settings = Settings(data_dir=tmp_path)
    assert (settings.artifacts, settings.models, settings.data) == tuple(
        tmp_path / name for name in ("artifacts", "models", "data")
    )
    assert settings.sqlalchemy_url == f"sqlite:///{tmp_path}/lco.sqlite3"


def test_stated_places_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings(artifact_root=Path("elsewhere"), models_root=tmp_path / "m")
    assert (settings.artifacts, settings.models) == (tmp_path / "elsewhere", tmp_path / "m")


def test_lists_are_comma_separated():
    settings = Settings(gpus="0, 2", labels="a100,fast", queues="lco.gpu")
    assert (settings.gpu_indices, settings.label_list, settings.queue_list) == ([0, 2], ["a100", "fast"], ["lco.gpu"])


def test_a_worker_with_gpus_serves_both_queues_unless_told_otherwise():
    assert Settings().queue_list == ["lco.cpu"]
    assert Settings(gpus="0").queue_list == ["lco.cpu", "lco.gpu"]


@pytest.mark.parametrize("gpus", ["0,0", "-1", "a"])
def test_what_is_no_list_of_gpus_is_refused(gpus):
    with pytest.raises(ValueError, match=r"GPU|int"):
        _ = Settings(gpus=gpus).gpu_indices


def test_the_environment_is_read_and_arguments_win(monkeypatch):
    monkeypatch.setenv("LCO_SLOTS", "7")
    monkeypatch.setenv("LCO_PORT", "1")
    settings = Settings.from_environment(port=2)
    assert (settings.slots, settings.port) == (7, 2)


def test_an_unknown_variable_is_refused(monkeypatch):
    monkeypatch.setenv("LCO_SLOT", "7")
    with pytest.raises(ValueError, match="slot"):
        Settings.from_environment()
