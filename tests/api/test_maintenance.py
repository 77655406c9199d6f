import json
from pathlib import Path

import pytest

from api import cli
from store.database import migrate
from store.settings import Settings


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a platform in ./var, as the commands find it."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["migrate"]) == 0
    return tmp_path


def test_backup_restore_and_fsck_from_the_command_line(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    capsys.readouterr()
    assert cli.main(["backup", "backups", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert cli.main(["restore", "--verify", made["directory"]]) == 0
    monkeypatch.setenv("LCO_DATA_DIR", "elsewhere")
    assert cli.main(["restore", made["directory"]]) == 0
    assert (here / "elsewhere/admin-key").read_text() == (here / "var/admin-key").read_text()
    capsys.readouterr()
    assert cli.main(["fsck"]) == 0
    assert capsys.readouterr().err == "every check passed\n"


def test_fsck_exits_1_and_names_what_is_wrong(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    migrate(Settings(data_dir=here / "var"), "20261124")
    capsys.readouterr()
    assert cli.main(["fsck", "--json"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "check": "schema",
        "object": "database",
        "message": "it is not at the newest migration: run `lco migrate`",
    }


@pytest.mark.parametrize("command", [["backup", "backups"], ["fsck"]])
def test_where_no_platform_is_the_commands_say_so(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(command) == 2
    assert "there is no platform in" in capsys.readouterr().err
    assert not (tmp_path / "var").exists()
