"""Real processes of stages without paying for torch's import each time.

`Launcher` starts one interpreter (`python -m tests.lco.launcher`) that loads what the stages need and then forks a
process per run. It executes the stage's module as `python -m MODULE ARGUMENTS` would, in a session of its own: it can
be signalled, killed and waited for.
"""

import json
import os
import runpy
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 60.0


def environment() -> dict[str, str]:
    """What a supervisor hands to a run."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "VIRTUAL_ENV") if name in os.environ}
    return kept | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}


@dataclass
class Process:
    """One run in progress."""

    launcher: "Launcher"
    pid: int
    run_dir: Path
    log: Path
    status: int | None = field(default=None)

    def wait(self) -> int:
        """The exit status; minus the signal's number where one ended it."""
        if self.status is None:
            self.status = int(self.launcher.ask({"do": "wait", "pid": self.pid})["status"])
        return self.status

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def leave(self) -> None:
        """Closes the pipe that says the parent is alive."""
        self.launcher.ask({"do": "leave", "pid": self.pid})

    def wait_for(self, record_type: str, **fields: Any) -> dict[str, Any]:
        """Waits until progress.jsonl has a record of a type with these fields."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            for record in records(self.run_dir):
                if record["type"] == record_type and fields.items() <= record.items():
                    return record
            time.sleep(0.002)
        raise AssertionError(f"no {record_type} with {fields} in time\n{self.log.read_text()}")


class Launcher:
    """A warm interpreter and the processes it forked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._count = 0
        self._interpreter: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._interpreter is not None:
            self._interpreter.communicate(timeout=DEADLINE_SECONDS)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._interpreter is None:
            self._interpreter = subprocess.Popen(
                [sys.executable, "-m", "tests.lco.launcher"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env=environment(),
            )
        assert self._interpreter.stdin is not None and self._interpreter.stdout is not None
        self._interpreter.stdin.write(json.dumps(request) + "\n")
        self._interpreter.stdin.flush()
        answer: dict[str, Any] = json.loads(self._interpreter.stdout.readline())
        return answer

    def start(
        self,
        module: str,
        config: dict[str, Any] | Path,
        run_dir: Path,
        *earlier: Path,
        environ: dict[str, str] | None = None,
    ) -> Process:
        """Starts `python -m MODULE CONFIG RUN_DIR --resume-from EARLIER...`."""
        self._count += 1
        if isinstance(config, dict):
            path = self.directory / f"config-{self._count}.json"
            path.write_text(json.dumps(config))
        else:
            path = config
        log = self.directory / f"log-{self._count}.txt"
        arguments = [str(path), str(run_dir), *(["--resume-from", *map(str, earlier)] if earlier else [])]
        request = {"module": module, "arguments": arguments, "log": str(log), "environ": environ or {}}
        answer = self.ask({"do": "start", **request})
        return Process(self, answer["pid"], run_dir, log)

    def start_ranks(
        self, count: int, module: str, config: dict[str, Any] | Path, run_dir: Path, *earlier: Path
    ) -> list[Process]:
        """Starts a stage as the several processes that `torchrun --nproc-per-node COUNT` would start."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        ranks = []
        for rank in range(count):
            environ = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
            environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            texts = {name: str(value) for name, value in environ.items()}
            ranks.append(self.start(module, config, run_dir, *earlier, environ=texts))
        return ranks

    def run(self, module: str, config: dict[str, Any] | Path, run_dir: Path, *earlier: Path) -> int:
        """Starts a stage and waits for its end."""
        return self.start(module, config, run_dir, *earlier).wait()


def records(run_dir: Path) -> list[dict[str, Any]]:
    """The whole lines of a run's progress.jsonl."""
    path = run_dir / "progress.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def metrics(*run_dirs: Path) -> dict[int, dict[str, float]]:
    """The metrics of every step over some attempts, later ones over earlier ones, times left out."""
    found: dict[int, dict[str, float]] = {}
    for run_dir in run_dirs:
        for record in records(run_dir):
            if record["type"] == "metrics":
                values = {name: value for name, value in record["values"].items() if not name.startswith("time/")}
                found.setdefault(record["step"], {}).update(values)
    return found


def _serve() -> None:
    """Answers requests of a `Launcher` until its end of the pipe closes."""
    import importlib

    for module in (
        "tokenizers",
        "transformers.models.llama.modeling_llama",
        "transformers.models.auto.tokenization_auto",
        "evaluation.benchmarks",
        "lco.checkpoint",
        "lco.diagnostics",
        "lco.distributed",
        "lco.estimation",
        "lco.optimization",
        "lco.rewards",
        "lco.validation",
    ):
        importlib.import_module(module)
    import torch

    torch.set_num_threads(1)
    pipes: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, int] = {}
        match request["do"]:
            case "start":
                reading, writing = os.pipe()
                pid = os.fork()
                if pid == 0:
                    os.close(writing)
                    for other in pipes.values():
                        os.close(other)
                    _become(request, reading)
                os.close(reading)
                pipes[pid] = writing
                answer["pid"] = pid
            case "wait":
                _, status = os.waitpid(request["pid"], 0)
                answer["status"] = os.waitstatus_to_exitcode(status)
                if request["pid"] in pipes:
                    os.close(pipes.pop(request["pid"]))
            case "leave":
                os.close(pipes.pop(request["pid"]))
        print(json.dumps(answer), flush=True)
    os._exit(0)  # nothing to tidy up, and torch takes its time


def _become(request: dict[str, Any], parent_fd: int) -> None:
    """The forked process runs the stage's module as its main module, and ends."""
    status = 1
    try:
        os.setsid()
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["LCO_PARENT_FD"] = str(parent_fd)
        os.environ.update(request["environ"])
        sys.argv = [request["module"], *request["arguments"]]
        try:
            runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
            status = 0
        except SystemExit as ending:
            status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    _serve()
