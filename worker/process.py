"""One attempt's process tree: its command, its environment, its start and its end."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from store.tracing import endpoint_of
from worker import keeper

LOG = "log.txt"
_LOOK_SECONDS = 0.05
_ALLOWED = frozenset({
    "PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH",
    "CUDA_DEVICE_ORDER", "CUBLAS_WORKSPACE_CONFIG",
})  # fmt: skip
_ALLOWED_PREFIXES = ("LC_", "PYTHON", "OMP_", "MKL_", "NCCL_", "NVIDIA_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What is started for one attempt."""

    module: str
    """Python module that is run."""
    config: Path
    """Its `config.json`."""
    directory: Path
    """Its run directory."""
    resume_from: tuple[Path, ...] = ()
    """Directories of earlier attempts of the run, newest first."""
    gpus: tuple[int, ...] = ()
    """GPU indices that it sees."""
    num_processes: int = 1
    """Processes that share the work; more than one are started under torchrun."""
    keys: tuple[str, ...] = ()
    """Variables of the supervisor's environment, beside the allow-list, that hold the keys it may use."""
    pause_at_step: int | None = None
    """The step after which it checkpoints and stops, to be looked at; None to run through."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Further variables, which win over those of the supervisor's environment."""
    mark: str
    """Names the attempt; every process of its tree carries it."""
    traceparent: str | None = None
    """Trace context of the attempt, for the spans of its process."""

    def arguments(self) -> list[str]:
        """The command line that a person would type."""
        ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(self.num_processes)]
        resume = ["--resume-from", *map(str, self.resume_from)] if self.resume_from else []
        pause = ["--pause-at-step", str(self.pause_at_step)] if self.pause_at_step is not None else []
        return [
            sys.executable, *(ranks if self.num_processes > 1 else []),
            "-m", self.module, str(self.config), str(self.directory), *pause, *resume,
        ]  # fmt: skip

    def environment(self, parent_descriptor: int, outer: Mapping[str, str]) -> dict[str, str]:
        """What the processes see of the supervisor's environment: an allow-list, so that no other credential does."""
        kept = {
            name: text
            for name, text in outer.items()
            if name in _ALLOWED or name in self.keys or name.startswith(_ALLOWED_PREFIXES)
        }
        is_traced = self.traceparent is not None and bool(endpoint_of(outer))
        exporter = {name: text for name, text in outer.items() if name.startswith("OTEL_")} if is_traced else {}
        if is_traced:
            exporter |= {"TRACEPARENT": str(self.traceparent), "OTEL_SERVICE_NAME": "lco-run"}
        # torchrun hands no descriptor on to its ranks, where the number could be another file: the watcher tells them.
        pipe = {"LCO_PARENT_FD": str(parent_descriptor)} if self.num_processes == 1 else {}
        return {
            "OMP_NUM_THREADS": "1",
            **kept,
            "PYTHONUNBUFFERED": "1",
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": ",".join(map(str, self.gpus)),
            **pipe,
            **exporter,
            **self.variables,
            keeper.MARK: self.mark,
        }


class RunProcess:
    """A started attempt: a session of its own whose processes end when this object's process ends."""

    def __init__(self, command: Command, held_descriptors: tuple[int, ...] = ()) -> None:
        """Starts the command.

        Args:
            held_descriptors: kept open by the tree, such as locks of the GPUs it uses: these outlive a killed
                supervisor as long as the tree does.

        Raises:
            OSError: it could not be started.
        """
        self._mark = command.mark
        self._lock = threading.Lock()
        read_end, self._write_end = os.pipe()  # nothing is ever written: EOF is the message
        try:
            with (command.directory / LOG).open("ab", buffering=0) as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(keeper.__file__), str(read_end), *command.arguments()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=command.environment(read_end, os.environ),
                    pass_fds=(read_end, *held_descriptors),
                    start_new_session=True,
                )
        except BaseException:
            os.close(self._write_end)
            raise
        finally:
            os.close(read_end)
        self.pid = self._process.pid
        """Of the command itself, and of its process group."""
        self.exit_code: int | None = None
        """Negative for a signal, as in `subprocess`; null while it runs."""

    def poll(self) -> int | None:
        """The exit status once the command ended. Whatever else of its tree still lives is killed then."""
        with self._lock:
            return self._poll()

    def _poll(self) -> int | None:
        if self.exit_code is None:
            # WNOWAIT leaves the zombie: its id still names the group, which nobody else can get meanwhile.
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
            keeper.signal_tree(self.pid, self._mark, signal.SIGKILL)
            self.exit_code = self._process.wait()
            os.close(self._write_end)
        return self.exit_code

    def _signal(self, number: signal.Signals) -> int | None:
        with self._lock:
            if self._poll() is None:
                keeper.signal_tree(self.pid, self._mark, number)
            return self.exit_code

    def wait(self, timeout_seconds: float) -> int | None:
        """Like `poll`, after at most the given time."""
        deadline = time.monotonic() + timeout_seconds
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(min(_LOOK_SECONDS, timeout_seconds))
        return self.exit_code

    def terminate(self) -> None:
        """Asks the tree to checkpoint and stop."""
        self._signal(signal.SIGTERM)

    def kill(self) -> int:
        """Ends the tree now; the exit status."""
        while (status := self._signal(signal.SIGKILL)) is None:
            self.wait(0.5)
        return status
