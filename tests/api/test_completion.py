"""What a shell completes is what the parsers know."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from api import cli
from api.commands.completion import fish, places_of, zsh

PLACES = list(places_of(cli.make_parser()))


@pytest.fixture
def complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """What bash offers for the last word of a command line."""
    assert cli.main(["completion", "bash"]) == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)
    (tmp_path / "job file.toml").touch()

    def offered(*words: str) -> list[str]:
        code = f'source "{script}"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _lco; printf "%s\\n" "${{COMPREPLY[@]}}"'
        command = ["bash", "-c", code, "bash", "lco", *words]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
        assert not done.stderr
        return done.stdout.split("\n")[:-1]

    return offered


def test_bash_completes_commands_options_values_and_files(complete: Callable[..., list[str]]) -> None:
    assert complete("ke") == ["keys"]
    assert complete("keys", "") == ["create", "list", "revoke", "-h", "--help"]
    assert complete("keys", "create", "--sc") == ["--scope"]
    assert complete("keys", "create", "ci", "--scope", "") == ["read", "write", "admin"]
    assert complete("results", "--format", "m") == ["markdown"]
    assert complete("completion", "z") == ["zsh"]
    assert complete("jobs", "--limit", "") == [""]
    assert complete("train", "j") == ["job file.toml"]
    assert "job file.toml" in complete("submit", "")


def test_every_command_and_option_is_in_every_script() -> None:
    assert {place.words for place in PLACES} >= {"", "up", "keys create", "doctor", "completion"}
    for script in (zsh(PLACES), fish(PLACES)):
        for place in PLACES:
            assert all(name in script for name in place.commands)
            assert all(name.lstrip("-") in script for name in place.options)


@pytest.mark.parametrize(("shell", "script"), [("zsh", zsh), ("fish", fish)])
def test_other_shells_accept_their_script(shell: str, script: Callable[..., str], tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    path = tmp_path / "script"
    path.write_text(script(PLACES))
    subprocess.run([shell, "-n", str(path)], check=True)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["job"], "there is no 'job'; did you mean jobs?"),
        (["keys", "creat"], "did you mean create?"),
        (["jobs", "--limt", "3"], "there is no option '--limt' here; did you mean --limit"),
        (["completion", "tcsh"], "it is one of bash, zsh, fish"),
    ],
)
def test_what_was_probably_meant_is_told(given: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(given)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
