"""Tests of the distribution: what the wheel holds, and that an installed wheel runs by itself."""

import os
import re
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

from api.local_platform import LocalPlatform

ROOT = Path(__file__).parents[1]
PACKAGES = {"lco", "evaluation", "store", "api", "worker", "migrations"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built without a network."""
    directory = tmp_path_factory.mktemp("wheel")
    import hatchling.builders.wheel

    built = hatchling.builders.wheel.WheelBuilder(str(ROOT)).build(directory=str(directory), versions=["standard"])
    return Path(next(iter(built)))


def test_the_wheel_holds_the_rooms_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        top = {name.split("/")[0] for name in archive.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == PACKAGES


def test_every_file_of_the_rooms_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    tracked = subprocess.run(["git", "ls-files", *sorted(PACKAGES)], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    assert set(tracked.stdout.split()) <= held


def test_lco_up_from_an_installed_wheel_migrates_and_is_ready(
    wheel: Path, fresh_environment: Path, tmp_path: Path
) -> None:
    python = fresh_environment / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)],
        check=True,
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    up = [str(fresh_environment / "bin" / "lco"), "up"]
    with LocalPlatform(tmp_path / "var", environment={"LCO_PORT": "0"}, up=up) as platform:
        shown = Path(f"/proc/{platform.children['up'].process.pid}/cmdline").read_text()
        assert str(fresh_environment) in shown
    assert (tmp_path / "var" / "lco.sqlite3").exists()


def test_the_lock_pins_every_dependency_with_a_hash_and_names_no_registry() -> None:
    text = (ROOT / "requirements.lock").read_text()
    pinned = set(re.findall(r"^([a-z0-9._-]+)(?:\[[a-z,]+\])?==\S+ \\$", text, re.MULTILINE))
    assert len(pinned) == len(re.findall(r"^[a-z0-9]", text, re.MULTILINE)), "a line without hashes"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    names = {re.split(r"[\[>=<!; ]", requirement)[0].lower().replace("_", "-") for requirement in wanted}
    assert names - pinned == {"torch", "lco-platform"}
    assert not re.search(r"https?:|index-url|find-links|file:|^/|@ ", text, re.MULTILINE)
    assert not {name for name in pinned if name.startswith(("nvidia", "cuda", "triton", "torch"))}


def test_torch_is_pinned_without_a_build_suffix() -> None:
    assert re.fullmatch(r"torch==\d+\.\d+\.\d+\n", (ROOT / "requirements-torch.lock").read_text())
