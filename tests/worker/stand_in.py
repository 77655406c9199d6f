"""A run's process as the supervisor sees one, without torch: `python -m tests.worker.stand_in CONFIG.json RUN_DIR`.

It "trains" a hash chain, one link a step, so that a resumed run can be compared with an uninterrupted one. How it
misbehaves stands in the configuration: JSON in the one free text that an `SftConfig` has (`policy.characters`).
"""

import argparse
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from lco.manifest import newest_checkpoint, write_durably, write_manifest

STOPPED = 75


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--resume-from", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    config = json.loads(arguments.config.read_text())
    text = config["policy"].get("characters", "{}") if isinstance(config["policy"], dict) else "{}"
    behaviour = json.loads(text) if text.startswith("{") else {}
    return StandIn(config, behaviour, arguments.directory, arguments.resume_from).run()


class StandIn:
    def __init__(self, config: dict, behaviour: dict, directory: Path, earlier: list[Path]) -> None:
        self.config, self.behaviour, self.directory, self.earlier = config, behaviour, directory, earlier
        self.stop = threading.Event()
        self.attempt = int(directory.name)

    def run(self) -> int:
        if self.behaviour.get("deaf"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        else:
            signal.signal(signal.SIGTERM, lambda *_: self.stop.set())
            if "LCO_PARENT_FD" in os.environ:
                threading.Thread(target=self._watch_parent, daemon=True).start()
        if self.behaviour.get("stray"):
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        print(f"attempt {self.attempt} of seed {self.config['seed']}, pid {os.getpid()}")
        print("x" * self.behaviour.get("print_bytes", 0))
        return self._steps()

    def _watch_parent(self) -> None:
        poll = select.poll()
        poll.register(int(os.environ["LCO_PARENT_FD"]))
        poll.poll()
        self.stop.set()

    def _steps(self) -> int:
        total, link, step = self.config.get("steps", 3), str(self.config["seed"]), 0
        newest = newest_checkpoint([self.directory, *self.earlier])
        if newest is not None:
            step, link = newest.step, (newest.directory / "link").read_text()
            self.say(type="event", level="info", message=f"resumed from step {step}")
        while step < total:
            if self.stop.is_set():
                self.checkpoint(step, link)
                return STOPPED
            time.sleep(self.behaviour.get("seconds", 0.01))
            step += 1
            link = hashlib.sha256(f"{link} {step}".encode()).hexdigest()
            self.say(type="progress", step=step, total=total, message="training")
            self.say(type="metrics", step=step, values={"train/loss": 1 / step, "train/broken": float("nan")})
            if step % self.config.get("checkpoint_every_steps", 50) == 0:
                self.checkpoint(step, link)
            if self.behaviour.get("kill_at") == [self.attempt, step]:
                os.kill(os.getpid(), signal.SIGKILL)
            if failure := self.behaviour.get("fail"):
                return self.fail(**failure)
        if self.behaviour.get("no_manifest"):
            return 0
        self.finish(step, link)
        return 0

    def say(self, **record: object) -> None:
        with (self.directory / "progress.jsonl").open("a") as stream:
            stream.write(json.dumps(record) + "\n")

    def checkpoint(self, step: int, link: str) -> None:
        place = self.directory / f"checkpoints/step-{step:06d}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        (place / "link").write_text(link)
        write_manifest(place, step=step, outputs={}, include=["link"])
        self.say(type="checkpoint", step=step, path=f"checkpoints/step-{step:06d}")

    def fail(self, exit_code: int, **error: str) -> int:
        if error:
            write_durably(self.directory / "error.json", json.dumps(error).encode())
        print("it fails", file=sys.stderr)
        return exit_code

    def finish(self, step: int, link: str) -> None:
        if "benchmarks" in self.config:
            rows = {"benchmark": "sums", "decoding": "greedy", "eval_seed": None}
            result = {**rows, "metric": "pass@1", "value": 0.5, "num_examples": 2, "num_unscored": 0}
            (self.directory / "results.json").write_text(json.dumps({"rows": [result]}))
            completion = {
                **rows, "example_id": "1+1=", "train_seed": self.config["seed"], "prompt": "1+1=", "completion": "2",
                "reference": "2", "extracted": "2", "verdict": "correct", "correct": True, "truncated": False,
            }  # fmt: skip
            lines = [completion, {**completion, "example_id": "1+2=", "verdict": "wrong", "correct": False}]
            (self.directory / "completions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            outputs = {"results": "results.json", "completions": "completions.jsonl"}
        else:
            (self.directory / "model").mkdir(exist_ok=True)
            (self.directory / "model" / "link").write_text(link)
            outputs = {"model": "model"}
        write_manifest(self.directory, step=step, outputs=outputs, include=list(outputs.values()))


if __name__ == "__main__":
    sys.exit(main())
