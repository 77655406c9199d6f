"""A stage as a process: `python -m lco.STAGE CONFIG.json RUN_DIR`. Progress out, orders to stop in. No torch.

Exit status: 0 done (`manifest.json` is complete), 75 stopped when asked to or paused by its collapse watch (with a
checkpoint), 2 a mistake in the configuration or the data, 1 anything else; `error.json` says more. SIGTERM and the end
of the pipe `LCO_PARENT_FD` both ask to stop (under torchrun, which hands no pipe on, the end of torchrun); an orphan
that has not stopped after `ORPHAN_SECONDS` ends itself. A finished run directory is left as it is.
"""

import argparse
import json
import math
import os
import re
import signal
import sys
import threading
import time
import tomllib
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lco.config import Config, sources
from lco.manifest import newest_checkpoint
from lco.metrics import METRICS
from lco.run_directory import ERROR, is_finished, outputs, settle_configuration, write_error
from lco.tracing import open_trace

EXIT_STOPPED = 75
EXIT_USER = 2
ORPHAN_SECONDS = 4.0
_OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What torch says without an error type of its own: on a CPU, by system, and for a library's workspace on a GPU."""
_LOOK_SECONDS = 0.3
_PLATFORM_INPUT = re.compile(r"(job|model|data):.+|(job|ckpt)_[0-9a-z]{26}")

ConfigT = TypeVar("ConfigT", bound=BaseModel)


class Stopped(Exception):
    """The stage was asked to stop and saved its state."""


class NonFinite(Exception):
    """Losses or gradients were not finite, several steps in a row."""


class Collapsed(Exception):
    """The collapse watch ended the run; its newest checkpoint is from before the collapse."""


class Paused(Exception):
    """The collapse watch wants a person to look; the state is saved, and the stage goes on when it is started again."""


class Stage:
    """What a stage's body is given: where to write, what to resume from, and whether to stop."""

    def __init__(self, run_dir: Path, resume_from: list[Path]) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self.run_dir = run_dir
        self.earlier = [run_dir, *resume_from]
        """Directories that may hold this run's state, this attempt's first."""
        self.is_writer = os.environ.get("RANK", "0") == "0"
        """Whether this process is the one of its stage's that writes."""
        self._progress = (run_dir / "progress.jsonl").open("a", encoding="utf-8") if self.is_writer else None
        self._spent = 0.0
        self._stop = threading.Event()
        self.pause_at_step: int | None = None
        """The step after which the stage stops by itself, for a search to decide; None runs through."""
        self.is_at_boundary = False
        """Whether that step was reached."""
        self._started = time.monotonic()
        self._trace = open_trace() if self.is_writer else None

    def close(self) -> None:
        """Closes the progress file."""
        if self._trace is not None:
            self._trace.close()
        if self._progress is not None:
            self._progress.close()

    @property
    def is_stopping(self) -> bool:
        """Whether somebody asked the stage to stop."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Asks the stage to stop at its next step boundary."""
        self._stop.set()

    def check(self) -> None:
        """Where nothing needs saving.

        Raises:
            Stopped: somebody asked the stage to stop.
        """
        if self.is_stopping:
            raise Stopped

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._progress is not None:
            self._progress.write(json.dumps(record, allow_nan=False) + "\n")
            self._progress.flush()

    def say(self, line: str) -> None:
        """A line of the log."""
        if self.is_writer:
            print(line, flush=True)

    def progress(self, step: int, total: int, message: str) -> None:
        """How far the stage is, in its own unit."""
        self._write({"type": "progress", "step": step, "total": total, "message": message})

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Named numbers of one step; the chief ones are also a line of the log."""
        if self.pause_at_step is not None and step >= self.pause_at_step:
            self.is_at_boundary = True
            self.stop()
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        self._write({"type": "metrics", "step": step, "values": finite})
        if self._trace is not None:
            self._trace.step(step, finite)
        chief = {key: value for key, value in values.items() if key not in METRICS or METRICS[key].is_logged}
        shown = "  ".join(f"{key.partition('/')[2]} {value:.4g}" for key, value in chief.items())
        self.say(f"[{time.monotonic() - self._started:8.1f}s] step {step}  {shown}")

    def arrive(self, step: int) -> None:
        """Where an earlier attempt saved the state of the step to pause at, and ended before it could say so.

        Raises:
            Stopped: there is nothing to compute until a search has decided.
        """
        if self.pause_at_step is None or step < self.pause_at_step:
            return
        self.is_at_boundary = True
        for directory in self.earlier:  # the numbers of that step may not have been read
            told = [line for line in _lines(directory / "progress.jsonl") if '"metrics"' in line]
            records = [json.loads(line) for line in told]
            if found := [record for record in records if record.get("step") == step and record["type"] == "metrics"]:
                self._write(found[-1])
                break
        raise Stopped

    def spending(self, usd: float) -> None:
        """What the servers that the stage asks have cost so far, in US dollars, earlier attempts included."""
        if usd > self._spent and math.isfinite(usd):
            self._spent = usd
            self._write({"type": "spending", "usd": usd})

    def checkpoint(self, step: int, directory: Path) -> None:
        """A resumable checkpoint is complete."""
        self._write({"type": "checkpoint", "step": step, "path": directory.relative_to(self.run_dir).as_posix()})

    def event(self, level: str, message: str) -> None:
        """Something a person should know."""
        self._write({"type": "event", "level": level, "message": message})
        self.say(f"{level}: {message}")


def run_stage(
    config_type: type[ConfigT],
    body: Callable[[ConfigT, Stage], None],
    arguments: list[str] | None = None,
    *,
    is_shared: bool = False,
    stage_type: type[Stage] = Stage,
) -> int:
    """Parses the command line, runs a stage's body and gives the process's exit status.

    Args:
        is_shared: several processes of torchrun can share the body's work (`lco.distributed`).
        stage_type: what shows progress and log.
    """
    parser = argparse.ArgumentParser(description=(config_type.__doc__ or "").partition("\n")[0])
    parser.add_argument("config", type=Path, help="the stage's configuration, JSON or TOML")
    parser.add_argument(
        "run_dir", type=Path, help="directory for everything the stage writes; resumed when it has a state"
    )
    parser.add_argument(
        "--resume-from",
        type=Path,
        nargs="*",
        default=[],
        metavar="DIR",
        help="run directories of earlier attempts, newest first",
    )
    parser.add_argument(
        "--pause-at-step", type=int, metavar="N", help="save the state after step N and stop, as if asked to"
    )
    options = parser.parse_args(arguments)
    stage = stage_type(options.run_dir, options.resume_from)
    stage.pause_at_step = options.pause_at_step
    if stage.is_writer:
        (options.run_dir / ERROR).unlink(missing_ok=True)  # of an earlier attempt in this directory
    signal.signal(signal.SIGTERM, lambda *_: stage.stop())
    signal.signal(signal.SIGINT, lambda *_: stage.stop())
    _watch_parent(stage)
    try:
        if not is_shared:
            _check_is_alone()
        config = read_config(options.config, config_type)
        settle_configuration(stage.run_dir, config, is_writer=stage.is_writer)
        if is_finished(stage.run_dir):
            stage.say("this run is finished: nothing is left to do")
        else:
            body(config, stage)
        for role, path in outputs(stage.run_dir).items():
            stage.say(f"{role}: {path}")
        return 0
    except Stopped:
        stage.say("stopped; the state is saved")
        if stage.is_at_boundary:
            message = f"step {stage.pause_at_step} is reached"
            write_error(stage.run_dir, {"outcome": "boundary", "code": "Boundary", "message": message})
        return EXIT_STOPPED
    except Paused as pause:
        stage.say(f"paused; the state is saved: {pause}")
        write_error(stage.run_dir, {"outcome": "paused", "code": "Paused", "message": str(pause)[:4000]})
        return EXIT_STOPPED
    except Exception as error:
        outcome = classify(error)
        if outcome not in ("user", "collapsed"):
            traceback.print_exc()
        message = str(error) or type(error).__name__
        if isinstance(error, NonFinite):
            last = newest_checkpoint(stage.earlier)
            message += f"; last good checkpoint: {last.directory if last else 'none, the run begins anew'}"
        print(f"{outcome} error: {message}", file=sys.stderr, flush=True)
        write_error(stage.run_dir, {"outcome": outcome, "code": type(error).__name__, "message": message[:4000]})
        return EXIT_USER if outcome == "user" else 1
    finally:
        stage.close()


def _lines(path: Path) -> list[str]:
    """The whole lines of a file; none where there is no file."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.endswith("}")]


def _check_is_alone() -> None:
    """Refuses several processes where they would all do the same into one directory.

    Raises:
        ValueError: torchrun started more than one process.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("resources: this kind of stage is one process; ask for one GPU at most")


def read_config(path: Path, config_type: type[ConfigT]) -> ConfigT:
    """The configuration in a JSON or TOML file.

    Raises:
        ValueError: the file cannot be read or a field is wrong; the message names every field. Also for an input that
            only the platform knows how to find.
    """
    try:
        content = path.read_bytes()
        text = json.dumps(tomllib.loads(content.decode())) if path.suffix == ".toml" else content
        config = config_type.model_validate_json(text)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'configuration'}: {e['msg']}" for e in error.errors()]
        raise ValueError(f"{path}: " + "; ".join(lines)) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError) as error:  # the last: a TOML date
        raise ValueError(f"{path}: {error}") from error
    for pointer, _, value in sources(config) if isinstance(config, Config) else ():
        if _PLATFORM_INPUT.fullmatch(value) and not Path(value).exists():
            raise ValueError(
                f"{'.'.join(pointer)}: {value!r} is a name that the platform resolves (`lco submit`); "
                "a stage run by hand takes a path"
            )
    return config


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception says that memory has ended, on a GPU or in the process."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def classify(error: Exception) -> str:
    """Whose fault an exception is: `user`, `oom`, `non_finite`, `collapsed` or `infra`."""
    if isinstance(error, Collapsed):
        return "collapsed"
    if isinstance(error, NonFinite):
        return "non_finite"
    if is_out_of_memory(error):
        return "oom"
    return "user" if isinstance(error, ValueError) else "infra"


def _watch_parent(stage: Stage) -> None:
    """Ends the process when who started it is gone, after a chance to save its state.

    Its supervisor holds the other end of a pipe open. Under torchrun there is no pipe, and torchrun itself is watched.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        parent = os.getppid()

        def is_gone() -> bool:
            time.sleep(_LOOK_SECONDS)
            return os.getppid() != parent

    elif (descriptor := os.environ.get("LCO_PARENT_FD")) is not None:
        number = int(descriptor)

        def is_gone() -> bool:
            return not os.read(number, 1)

    else:
        return

    def watch() -> None:
        while not is_gone():
            pass
        stage.stop()
        stage.say("the supervisor is gone; saving the state")
        time.sleep(ORPHAN_SECONDS)
        os._exit(EXIT_STOPPED)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
