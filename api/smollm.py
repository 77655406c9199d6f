"""`make smollm`: the pipeline with a real pretrained model, SmolLM2-135M-Instruct, imported when it is not there yet.

Like the demo it is nothing but an HTTP client once the platform runs; `lco.importing` reads weights in its own process.
"""

import argparse
import gzip
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from api import demo

MODEL = "smollm2-135m"
SHORT_FORM = Path("experiments/smollm2-gsm8k-short.toml")
LONG_FORM = Path("experiments/smollm2-gsm8k.toml")
OWN_DATA = Path("experiments/smollm2")


class NotReady(Exception):
    """Something that the experiment needs cannot be had."""


def main(arguments: list[str] | None = None) -> int:
    """The command line.

    Returns:
        0 when every job succeeded; 1 when one did not, or the model or the questions cannot be had.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.long and options.gsm8k is None:
            raise NotReady("the long form needs the real data set: --gsm8k DIR")
        lay_out_data(options.data_dir / "data", options.gsm8k)
        install_reader()
        import_model(options.data_dir / "models")
    except NotReady as error:
        print(f"smollm failed: {error}", file=sys.stderr, flush=True)
        return 1
    experiment = LONG_FORM if options.long else SHORT_FORM
    play = ["--experiment", str(experiment), "--data-dir", str(options.data_dir), "--report", str(options.report)]
    return demo.main(play if options.stay else [*play, "--detach"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m api.smollm", description="Plays the pipeline with SmolLM2-135M.")
    parser.add_argument("--gsm8k", type=Path, metavar="DIR", help="GSM8K's train.jsonl and test.jsonl (or .jsonl.gz)")
    parser.add_argument("--long", action="store_true", help="the long form instead: hours rather than minutes")
    parser.add_argument("--data-dir", type=Path, default=Path("var/smollm"), help="what the platform writes")
    parser.add_argument("--report", type=Path, default=Path("var/smollm/report.json"), help="where every number goes")
    parser.add_argument("--stay", action="store_true", help="leave the platform running until Ctrl-C")
    return parser


def lay_out_data(root: Path, gsm8k: Path | None) -> None:
    """Copies the questions to where jobs may name them: `data:gsm8k/...`, and the sums of the short form.

    Args:
        gsm8k: directory of the real data set; None takes a few invented questions of the same form.

    Raises:
        NotReady: a file is missing or cannot be read.
    """
    source = OWN_DATA if gsm8k is None else gsm8k
    try:
        (root / "gsm8k").mkdir(parents=True, exist_ok=True)
        for split in ("train", "test"):
            _copy_lines(_data_file(source, split), root / "gsm8k" / f"{split}.jsonl")
        (root / "smollm2").mkdir(exist_ok=True)
        shutil.copyfile(OWN_DATA / "sums.jsonl", root / "smollm2" / "sums.jsonl")
    except (OSError, EOFError) as error:
        raise NotReady(str(error)) from error


def _data_file(directory: Path, split: str) -> Path:
    names = [f"{prefix}{split}.jsonl{suffix}" for prefix in ("", "gsm8k_") for suffix in ("", ".gz")]
    for name in names:
        if (directory / name).is_file():
            return directory / name
    raise NotReady(f"{directory} has none of {', '.join(names)}")


def _copy_lines(source: Path, target: Path) -> None:
    """Copies a file, unpacked where it is compressed; whole or not at all."""
    temporary = target.with_name(f".{target.name}.tmp")
    with (gzip.open if source.suffix == ".gz" else open)(source, "rb") as stream, temporary.open("wb") as out:
        shutil.copyfileobj(stream, out)
    temporary.replace(target)


def install_reader() -> None:
    """Installs the `gguf` extra where it is missing.

    Raises:
        NotReady: pip failed.
    """
    if importlib.util.find_spec("gguf") is not None:
        return
    needs = importlib.metadata.requires("lco-platform") or []
    extra = [need.partition(";")[0].strip() for need in needs if "extra == 'gguf'" in need.replace('"', "'")]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *extra]
    if subprocess.run(command, check=False).returncode != 0:
        raise NotReady(f"pip could not install {', '.join(extra)}")


def import_model(root: Path) -> None:
    """Imports the model unless it is there.

    Raises:
        NotReady: the import failed; its own message is on stderr.
    """
    if (root / MODEL / "manifest.json").is_file():
        print(f"{root / MODEL} is there", flush=True)
        return
    print(f"importing {MODEL} into {root} (93 MB to fetch, 540 MB on disk, about a minute) ...", flush=True)
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    command = [sys.executable, "-m", "lco.importing", MODEL, str(root)]
    if subprocess.run(command, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode != 0:
        raise NotReady(f"{MODEL} could not be imported")


if __name__ == "__main__":
    sys.exit(main())
