"""Every command of the tutorial, in an empty directory, as a reader would type it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"


def blocks(language: str) -> list[str]:
    """The code blocks of the tutorial in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The reader's directory, with the files that the tutorial shows: the first line of each is its name."""
    for text in blocks("toml"):
        name = re.match(r"# (\S+)\n", text)
        assert name is not None
        (tmp_path / name[1]).write_text(text)
    return tmp_path


@pytest.fixture
def environment(directory: Path) -> dict[str, str]:
    """The reader's environment: the commands in the path, and a free port, so that nothing else is disturbed."""
    root = Path(__file__).parents[1]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(root), "LCO_PORT": "0", "LCO_SLOTS": "2"}


@pytest.fixture
def platform(directory: Path, environment: dict[str, str]) -> Iterator[None]:
    """The first terminal."""
    command = blocks("sh")[0].split()
    assert command == ["lco", "up"]
    with subprocess.Popen(
        command, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as up:
        try:
            assert up.stdout is not None
            while "Ctrl-C" not in (line := up.stdout.readline()):
                assert line, "the platform ended before it was up"
            yield
        finally:
            up.terminate()
            up.communicate(timeout=60)


@pytest.mark.timeout(600)  # processes, each of which loads torch: half a minute on two idle cores
@pytest.mark.usefixtures("platform")
def test_the_tutorial_ends_with_a_named_model_and_results(directory: Path, environment: dict[str, str]) -> None:
    script = "set -euo pipefail\n" + "".join(blocks("sh")[1:])
    done = subprocess.run(
        ["bash", "-c", script], cwd=directory, env=environment, capture_output=True, text=True, timeout=580, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert re.search(r"^exp_\S+ succeeded$", done.stdout, re.MULTILINE)
    assert {"sft", "lco"} <= set(re.findall(r"^(\S+) +gsm8k +pass@1 +greedy ", done.stdout, re.MULTILINE)), done.stdout
    assert '"kind": "model"' in done.stdout
    assert (directory / "var" / "lco.sqlite3").exists()
