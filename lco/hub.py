"""A model from a hub becomes a run's published model. `python -m lco.hub CONFIG RUN_DIR`.

Only safetensors, JSON and text are fetched, never a pickle and never code. The hub and the token come from the
environment, in the words of huggingface_hub: `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`, `HF_HOME`.
"""

import fnmatch
import json
import os
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

from lco.hub_config import ImportConfig
from lco.manifest import file_sha256, write_manifest
from lco.stage import Stage, run_stage

MODEL = "model"
TAKEN = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "tokenizer*.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model",
    "*.jinja", "README.md", "LICENSE*", "chat_template.json",
)  # fmt: skip
"""Names of files that are taken, as far as they stand beside `config.json`: folders hold other forms of the weights."""
_LONGEST_HEADER = 100_000_000


def import_from_hub(config: ImportConfig, stage: Stage) -> None:
    """Fetches the files, checks that they are a model, and publishes it.

    Raises:
        ValueError: there is no such model or commit, it may not be read, or it is no model of safetensors.
        OSError: the hub cannot be reached, or sent other bytes than it promised.
    """
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
    from huggingface_hub.errors import RevisionNotFoundError as NoRevision

    directory = stage.run_dir / MODEL
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    is_offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    try:
        (_copy if is_offline else _fetch)(config, stage, directory)
    except NoRevision as error:
        raise ValueError(f"revision: {config.hub_id} has no commit {config.revision}") from error
    except GatedRepoError as error:
        raise ValueError(f"hub_id: the hub gives {config.hub_id} only to those who accepted its terms") from error
    except RepositoryNotFoundError as error:
        raise ValueError(f"hub_id: the hub has no {config.hub_id} that this token may read") from error
    except LocalEntryNotFoundError as error:
        if is_offline:
            raise ValueError(f"hub_id: {config.hub_id} at this revision is not in the worker's cache") from error
        raise
    check_model(directory)
    source = {"hub_id": config.hub_id, "revision": config.revision}
    write_manifest(stage.run_dir, step=0, outputs={"model": MODEL}, include=[MODEL], source=source)


def _fetch(config: ImportConfig, stage: Stage, directory: Path) -> None:
    from huggingface_hub import HfApi, hf_hub_download

    info = HfApi().model_info(config.hub_id, revision=config.revision, files_metadata=True)
    if info.sha != config.revision:
        raise ValueError(f"revision: the hub answers with {str(info.sha)[:64]}, which is another commit")
    wanted = [file for file in info.siblings or [] if is_taken(file.rfilename)]
    total = sum(file.size or 0 for file in wanted)
    done = 0
    for file in wanted:
        stage.check()
        stage.progress(done >> 20, total >> 20, f"fetching {file.rfilename} (MiB)")
        place = Path(hf_hub_download(config.hub_id, file.rfilename, revision=config.revision, local_dir=directory))
        if file.size is not None and place.stat().st_size != file.size:
            raise OSError(f"{file.rfilename} has another size than the hub says")
        if file.lfs is not None and file_sha256(place) != file.lfs.sha256:
            raise OSError(f"{file.rfilename} differs from the hash that the hub states")
        done += place.stat().st_size
        stage.say(f"{file.rfilename}: {place.stat().st_size} bytes")
    shutil.rmtree(directory / ".cache", ignore_errors=True)
    stage.progress(total >> 20, total >> 20, "checking")


def _copy(config: ImportConfig, stage: Stage, directory: Path) -> None:
    from huggingface_hub import snapshot_download

    cached = Path(
        snapshot_download(config.hub_id, revision=config.revision, allow_patterns=list(TAKEN), local_files_only=True)
    )
    for place in sorted(path for path in cached.iterdir() if path.is_file() and is_taken(path.name)):
        stage.check()
        shutil.copyfile(place, directory / place.name)
        stage.say(f"{place.name}: {place.stat().st_size} bytes, from the cache")


def is_taken(name: str) -> bool:
    """Whether a file of a repository is part of the model."""
    return "/" not in name and any(fnmatch.fnmatchcase(name, pattern) for pattern in TAKEN)


def check_model(directory: Path) -> None:
    """Refuses what no job could load: a configuration or tokenizer that transformers does not know, damaged weights.

    Raises:
        ValueError: says what is wrong.
    """
    weights = sorted(directory.glob("*.safetensors"))
    if not (directory / "config.json").is_file() or not weights:
        raise ValueError("hub_id: there is no config.json with safetensors beside it; other forms are not taken")
    for path in weights:
        _check_weights(path)
    for index in directory.glob("*.safetensors.index.json"):
        named = set(json.loads(index.read_bytes())["weight_map"].values())
        if missing := sorted(named - {path.name for path in weights}):
            raise ValueError(f"hub_id: {index.name} names {missing[0]}, which is not there")
    from transformers import AutoConfig, AutoTokenizer  # seconds, for what has come so far

    for loader in (AutoConfig, AutoTokenizer):
        try:
            loader.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # unknown architectures and damaged files raise anything
            raise ValueError(f"hub_id: {type(error).__name__}: {str(error)[:500]}") from error


def _check_weights(path: Path) -> None:
    """Refuses a safetensors file that is cut off or no such file, without reading its tensors."""
    size = path.stat().st_size
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(size, _LONGEST_HEADER):
                raise ValueError("its header is longer than the file")
            header: dict[str, Any] = json.loads(stream.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"hub_id: {path.name} is no safetensors file ({error})") from error
    if 8 + length + max(ends, default=0) != size:
        raise ValueError(f"hub_id: {path.name} is cut off")


def main(arguments: list[str] | None = None) -> int:
    """Imports as a process; its exit status."""
    return run_stage(ImportConfig, import_from_hub, arguments)


if __name__ == "__main__":
    sys.exit(main())
