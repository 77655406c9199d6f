"""What a run directory says of an earlier start in it: with which configuration, whether it is finished. No torch."""

import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lco.manifest import MANIFEST, read_manifest, sync_directory, write_durably

CONFIGURATION = "resolved_config.json"
"""The configuration of the work in a run directory, every default written out."""
ERROR = "error.json"
_WORK = (MANIFEST, "checkpoints", "generations.jsonl", "completions.jsonl")
"""What later starts go on with, or would write over."""


def settle_configuration(run_dir: Path, config: BaseModel, *, is_writer: bool = True) -> None:
    """Notes the configuration that a directory's work belongs to; a start that has left no work does not bind.

    Raises:
        ValueError: there is work of another configuration; the message names the first field that differs.
    """
    now = config.model_dump(mode="json")
    path = run_dir / CONFIGURATION
    if path.exists() and any((run_dir / name).exists() for name in _WORK):
        if found := _difference(json.loads(path.read_bytes()), now):
            field, before, wanted = found
            raise ValueError(
                f"{field}: {run_dir} holds work with {json.dumps(before)}, not {json.dumps(wanted)}; "
                "another configuration needs another run directory"
            )
    elif is_writer:
        write_durably(path, json.dumps(now, indent=1).encode())


def _difference(before: Any, now: Any, field: str = "") -> tuple[str, Any, Any] | None:
    """The first leaf that differs with both its values. A field that one side does not know is no difference."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in (name for name in now if name in before):
            if found := _difference(before[name], now[name], f"{field}.{name}" if field else name):
                return found
        return None
    return None if before == now else (field, before, now)


def is_finished(run_dir: Path) -> bool:
    """Whether the run is complete, every file of it checked.

    Raises:
        ValueError: it was, but a file is missing or damaged.
    """
    return (run_dir / MANIFEST).exists() and bool(read_manifest(run_dir))


def outputs(run_dir: Path) -> dict[str, Path]:
    """What a finished run made, by role; empty where it is not finished."""
    path = run_dir / MANIFEST
    stated: dict[str, str] = json.loads(path.read_bytes())["outputs"] if path.exists() else {}
    return {role: run_dir / name for role, name in stated.items()}


def write_error(run_dir: Path, document: dict[str, Any]) -> None:
    """Writes `error.json` durably; of several processes the first to fail is heard, the others fail because of it."""
    temporary = run_dir / f".{ERROR}.{os.getpid()}.tmp"
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(document))
        stream.flush()
        os.fsync(stream.fileno())
    try:
        (run_dir / ERROR).hardlink_to(temporary)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    sync_directory(run_dir)
