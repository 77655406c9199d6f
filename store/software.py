"""With what a run computes: the hash of the program's own source, and the versions of what it stands on. No torch."""

import hashlib
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

PACKAGES = ("lco-platform", "torch", "transformers", "peft", "safetensors", "tokenizers", "accelerate", "math-verify")
"""What can change a number, as far as it is installed."""


@cache
def program_hash() -> str:
    """Hash of the source of the rooms that compute: a change of the program is a change of content."""
    digest = hashlib.sha256()
    for room in ("lco", "evaluation"):
        root = Path(str(files(room)))
        for path in sorted(root.rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@cache
def software() -> dict[str, str]:
    """Python, the installed ones of `PACKAGES`, and `program`: read from this process's environment, which a run's
    process shares.
    """
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | {"program": program_hash()}
