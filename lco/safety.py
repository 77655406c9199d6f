"""What a model directory may hold: safetensors and JSON, nothing that runs. No torch."""

import json
from pathlib import Path
from typing import Any

_UNSAFE_SUFFIXES = frozenset(
    (
        ".bin",
        ".pt",
        ".pth",
        ".pkl",
        ".pickle",
        ".ckpt",
        ".h5",
        ".keras",
        ".joblib",
        ".npy",
        ".npz",
        ".msgpack",
        ".py",
        ".gguf",
    )
)
_UNSAFE_KEYS = frozenset({"auto_map", "trust_remote_code", "custom_pipeline"})


def check_is_safe(directory: Path) -> None:
    """Looks at a model directory before anything of it is loaded.

    Raises:
        ValueError: it is missing, a file could run code when loaded, or a JSON file names code to run.
    """
    if (directory / "progress.jsonl").is_file():
        hint = f"its model is {directory / 'model'}" if (directory / "model").is_dir() else "it has made no model"
        raise ValueError(f"{directory}: this is the directory of a run; {hint}")
    if not (directory / "config.json").is_file():
        raise ValueError(f"{directory}: no model here (config.json is missing)")
    for path in directory.rglob("*"):
        if path.suffix.lower() in _UNSAFE_SUFFIXES:
            raise ValueError(f"{directory}: {path.name} is refused, a model is safetensors and JSON only")
        if path.suffix == ".json" and path.is_file():
            try:
                document = json.loads(path.read_bytes())
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{directory}: {path.name} is no JSON ({error})") from error
            if found := _keys(document) & _UNSAFE_KEYS:
                raise ValueError(f"{directory}: {path.name} names code to run ({', '.join(sorted(found))})")


def _keys(document: Any) -> set[str]:
    if isinstance(document, dict):
        return set(document).union(*map(_keys, document.values()))
    if isinstance(document, list):
        return set().union(*map(_keys, document))
    return set()
