"""`lco train` and its sisters, and `lco models`: processes that are started as anybody may start them."""

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from api.commands.tables import print_table
from store.settings import Settings


def become(module: str, arguments: Sequence[str]) -> None:
    """Becomes the process of one stage, the very one that a job of this kind runs."""
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 - no shell is wanted


def import_model(options: Namespace) -> int:
    """Becomes the process that makes a model available as `model:NAME`."""
    root = Settings.from_environment().models
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    more = ["--gguf", options.gguf] if options.gguf else []
    become("lco.importing", [options.name, str(root), *more])
    return 0


def list_models(options: Namespace) -> int:
    """Lists imported models: the directories that hold a configuration."""
    root = Settings.from_environment().models
    found = sorted(path for path in root.glob("*") if (path / "config.json").is_file())
    if options.json:
        import json

        print(json.dumps([f"model:{path.name}" for path in found]))
        return 0
    return print_table(["model", "size", "path"], [[f"model:{p.name}", _size(p), p] for p in found])


def _size(directory: Path) -> str:
    num_bytes = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    return f"{num_bytes / 1e6:,.1f} MB"
