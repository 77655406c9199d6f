"""A believable platform for the pictures of the documentation; every number is drawn from one seed."""

import itertools
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.orm import Session

from store.database import Database
from store.ids import encode_id
from store.models.base import utc_now
from store.models.tables import (
    Alias,
    Attempt,
    Checkpoint,
    Completion,
    Event,
    Experiment,
    Job,
    LogChunk,
    Metric,
    Result,
    Run,
    RunDependency,
    Worker,
)
from store.repositories.datasets import Datasets
from store.settings import Settings
from store.states import RunState, job_status
from store.uploads import incoming_folder, keep_rows
from tests.dashboard.shapes import METHODS, shapes_of

Row = TypeVar("Row")

SEEDS = 4
STEPS = 300


@dataclass
class Shown:
    """Where things are."""

    experiment: str = ""
    running: str = ""
    jobs: dict[str, str] = field(default_factory=dict)
    runs: dict[tuple[str, int], str] = field(default_factory=dict)


def show(database: Database, settings: Settings) -> Shown:
    """Writes everything in one transaction."""
    with database.write() as session:
        return _Show(session, settings).write()


class _Show:
    def __init__(self, session: Session, settings: Settings) -> None:
        self.session = session
        self.settings = settings
        self.now = utc_now()
        self.random = random.Random(20260301)
        self.numbers = itertools.count(1)
        self.shown = Shown()

    def id(self) -> UUID:
        """UUIDv7-like, in the order of the calls, and the same each time."""
        return UUID(int=(0x0199_2000_0000 << 80) | (7 << 76) | (0b10 << 62) | next(self.numbers))

    def ago(self, minutes: float) -> datetime:
        return self.now - timedelta(minutes=minutes)

    def add(self, row: Row) -> Row:
        self.session.add(row)
        self.session.flush()
        return row

    def write(self) -> Shown:
        self.workers = [
            self.add(
                Worker(
                    id=self.id(),
                    host=host,
                    pid=pid,
                    dispatcher="celery",
                    queues=["lco.gpu", "lco.cpu"],
                    labels=labels,
                    slots=4,
                    gpus=[0, 1, 2, 3],
                    started_at=self.ago(60 * 26),
                    last_seen_at=self.now - timedelta(seconds=4),
                )
            )
            for host, pid, labels in (("gpu-01", 3120, ["a100"]), ("gpu-02", 2877, ["a100"]))
        ]
        self.experiment("arithmetic", "LCO against PPO and GRPO on multi-step sums, four train seeds.", is_over=True)
        self.experiment("arithmetic-long", "The same with three times the steps.", is_over=False)
        self.datasets()
        return self.shown

    def experiment(self, name: str, description: str, *, is_over: bool) -> None:
        experiment = self.add(
            Experiment(
                id=self.id(),
                name=name,
                description=description,
                document={"name": name},
                created_at=self.ago(300 if is_over else 42.5),
            )
        )
        if is_over:
            self.shown.experiment = encode_id("exp", experiment.id)
        else:
            self.shown.running = encode_id("exp", experiment.id)
        plan: list[tuple[str, str, str, list[str]]] = [
            ("sft", "sft", "sft", []),
            ("pairs", "pairs", "pairs", ["sft"]),
            ("rm", "dpo", "rm", ["sft", "pairs"]),
        ]
        plan += [
            (method, "train", method, ["sft", "rm"] if method.startswith("lco") else ["sft"]) for method in METHODS
        ]
        plan += [(f"eval-{method}", "evaluation", method, [method]) for method in ("sft", *METHODS)]
        runs: dict[tuple[str, int], Run] = {}
        for place, (job_name, kind, method, needs) in enumerate(plan):
            self.job(experiment, runs, place, job_name, kind, method, needs, is_over=is_over)

    def job(
        self,
        experiment: Experiment,
        runs: dict[tuple[str, int], Run],
        place: int,
        name: str,
        kind: str,
        method: str,
        needs: Sequence[str],
        *,
        is_over: bool,
    ) -> None:
        states = [self.state(kind, name, seed, is_over) for seed in range(SEEDS)]
        config: dict[str, Any] = {
            "policy": "job:sft" if needs else {"name": "llama", "hidden_size": 64, "num_layers": 2}
        }
        if kind == "train":
            config |= {
                "algorithm": {"name": method, **({"beta": 0.1, "support": "full"} if "lco" in method else {})},
                "prompts": {"name": "sums", "num_terms": 4},
                "steps": STEPS,
                "batch_size": 64,
                "learning_rate": 3e-4,
            }
        job = self.add(
            Job(
                id=self.id(),
                experiment_id=experiment.id,
                name=name,
                kind=kind,
                method=method,
                spec={"kind": kind, "name": name, "seeds": list(range(SEEDS)), "config": config},
                status=job_status(states),
                created_at=experiment.created_at,
            )
        )
        if is_over:
            self.shown.jobs[name] = encode_id("job", job.id)
        for seed, state in enumerate(states):
            run = runs[name, seed] = self.add(self.run(job, place, seed, state, is_over))
            if is_over or state == RunState.RUNNING:
                self.shown.runs[name if is_over else f"long-{name}", seed] = encode_id("run", run.id)
            for needed in needs:
                self.add(RunDependency(run_id=run.id, needs_id=runs[needed, seed].id))
            self.leave(experiment, job, run)

    def state(self, kind: str, name: str, seed: int, is_over: bool) -> RunState:
        if is_over:
            return RunState.FAILED if (name, seed) in (("ppo", 3), ("eval-ppo", 3)) else RunState.SUCCEEDED
        if kind in ("sft", "pairs", "dpo"):
            return RunState.SUCCEEDED
        if kind == "train":
            busy = {"lco-kld": 4, "lco-lch": 2, "ppo": 1}.get(name, 0)
            return RunState.RUNNING if seed < busy else RunState.QUEUED
        return RunState.SUCCEEDED if name == "eval-sft" else RunState.BLOCKED

    def run(self, job: Job, place: int, seed: int, state: RunState, is_over: bool) -> Run:
        begin = 290 - 17 * place if is_over else 41 - 6 * min(place, 4)
        has_begun = state in (RunState.SUCCEEDED, RunState.FAILED, RunState.RUNNING)
        is_ended = state in (RunState.SUCCEEDED, RunState.FAILED)
        total = {"train": STEPS, "sft": 600, "dpo": 200}.get(job.kind, 0)
        step = total if state == RunState.SUCCEEDED else int(STEPS * (0.42 + 0.11 * seed)) if has_begun else 0
        has_failed = state == RunState.FAILED
        memory = "out of GPU memory: tried to allocate 2.31 GiB, 1.10 GiB are free; lower `micro_batch_tokens`"
        error = memory if job.kind == "train" else "the run that it needs has failed: ppo, seed 3"
        return Run(
            id=self.id(),
            job_id=job.id,
            kind=job.kind,
            seed=seed,
            queue="lco.gpu",
            num_gpus=1,
            state=state,
            attempt=int(has_begun),
            worker_id=self.workers[seed % 2].id if state == RunState.RUNNING else None,
            hb_at=self.now,
            progress_step=min(step, total or step),
            progress_total=total,
            progress_message="sampling completions" if state == RunState.RUNNING else "",
            progress_at=self.now,
            blocked_on=int(state == RunState.BLOCKED),
            output_attempt=int(state == RunState.SUCCEEDED),
            available_at=self.ago(8.2),
            error_code="oom" if has_failed and job.kind == "train" else "upstream" if has_failed else "",
            error_message=error if has_failed else "",
            latest_metrics={},
            created_at=self.ago(begin + 1),
            started_at=self.ago(begin) if has_begun else None,
            finished_at=self.ago(begin - 11.3 - seed / 3) if is_ended else None,
        )

    def leave(self, experiment: Experiment, job: Job, run: Run) -> None:
        """What a run that has begun leaves behind."""
        self.event(job, run, "run.state", "queued", run.created_at)
        if run.started_at is None:
            return
        host = ("gpu-01", "gpu-02")[run.seed % 2]
        self.add(
            Attempt(
                run_id=run.id,
                n=1,
                worker_id=self.workers[run.seed % 2].id,
                dispatcher="celery",
                host=host,
                pid=4100 + run.seed,
                gpus=[run.seed],
                outcome=None if run.finished_at is None else "oom" if run.error_code else "succeeded",
                exit_code=None if run.finished_at is None else 1 if run.error_code else 0,
                error_message=run.error_message,
                started_at=run.started_at,
                ended_at=run.finished_at,
            )
        )
        self.event(job, run, "run.state", f"running on {host}, GPU {run.seed}", run.started_at)
        if job.kind in ("sft", "dpo", "train"):
            self.curves(job, run)
        if run.finished_at is None:
            return
        self.event(
            job,
            run,
            "run.state",
            run.error_message or "succeeded",
            run.finished_at,
            "error" if run.error_code else "info",
        )
        if run.error_code:
            return
        if job.kind in ("sft", "dpo", "train"):
            self.checkpoints(job, run)
        if job.kind == "evaluation":
            self.measure(experiment, job, run)

    def event(self, job: Job, run: Run, kind: str, message: str, moment: datetime, level: str = "info") -> None:
        job.event_seq += 1
        self.add(
            Event(
                job_id=job.id,
                seq=job.event_seq,
                run_id=run.id,
                type=kind,
                level=level,
                message=message,
                created_at=moment,
            )
        )

    def curves(self, job: Job, run: Run) -> None:
        steps = range(2, run.progress_step + 1, 2)
        shapes = shapes_of(job.method, job.kind, self.random, run.seed)
        for step in steps:
            for key, shape in shapes.items():
                run.latest_metrics = {**run.latest_metrics, key: shape(step)}
                self.session.add(Metric(run_id=run.id, key=key, step=step, value=run.latest_metrics[key], attempt=1))
        lines = [f"{job.name}: {run.progress_total} steps, train seed {run.seed}, 1 process on cuda:{run.seed}"]
        for step in range(20, run.progress_step + 1, 20):
            told = "  ".join(f"{key.partition('/')[2]} {shape(step):.4g}" for key, shape in list(shapes.items())[:4])
            lines.append(f"step {step:>4} of {run.progress_total}  {told}")
        if run.error_message:
            lines.append(f"error: {run.error_message}")
        text = "\n".join(lines) + "\n"
        self.add(LogChunk(run_id=run.id, attempt=1, chunk=0, text=text, created_at=run.started_at))

    def checkpoints(self, job: Job, run: Run) -> None:
        for kind, step in (
            ("state", run.progress_step // 2),
            ("state", run.progress_step),
            ("model", run.progress_step),
        ):
            row = self.add(
                Checkpoint(
                    id=self.id(),
                    run_id=run.id,
                    attempt=1,
                    kind=kind,
                    step=step,
                    path=f"runs/{run.id}/1/{kind}-{step}",
                    manifest_sha256=f"{run.seed:064x}",
                    size_bytes=96_400_000 if kind == "state" else 31_200_000,
                    is_pinned=kind == "model" and run.seed == 0,
                    created_at=run.finished_at,
                )
            )
            self.event(job, run, "run.checkpoint", f"{kind} at step {step}", run.finished_at or self.now)
        if job.name == "lco-kld" and run.seed == 0:
            self.add(Alias(name="champion", checkpoint_id=row.id))

    def measure(self, experiment: Experiment, job: Job, run: Run) -> None:
        mean, spread = METHODS.get(job.method, (0.34, 0.006))
        draw = self.random.gauss(0, spread)
        for benchmark, shift in (("sums", 0.0), ("gsm8k", -0.31)):
            for decoding, gain, eval_seeds in (("greedy", 0.06, [None]), ("t1.0", 0.0, [0, 1, 2, 3])):
                for eval_seed in eval_seeds:
                    value = round(min(mean + shift + gain + draw + self.random.gauss(0, 0.004), 1.0), 4)
                    self.add(
                        Result(
                            id=self.id(),
                            run_id=run.id,
                            job_id=job.id,
                            experiment_id=experiment.id,
                            method=job.method,
                            benchmark=benchmark,
                            metric="pass@1",
                            decoding=decoding,
                            train_seed=run.seed,
                            eval_seed=eval_seed,
                            value=value,
                            stderr_over_examples=math.sqrt(value * (1 - value) / 1000),
                            num_examples=1000,
                        )
                    )
        draws = random.Random(7)
        for position in range(60):
            terms = [draws.randint(2, 99) for _ in range(4)]
            total = sum(terms)
            is_right = self.random.random() < mean
            said = total if is_right else total + self.random.choice([-10, -1, 1, 10])
            steps = ", then ".join(f"{sum(terms[:n])}+{terms[n]}={sum(terms[: n + 1])}" for n in range(1, 4))
            self.session.add(
                Completion(
                    run_id=run.id,
                    position=position,
                    benchmark="sums",
                    example_id=f"sums-{position:04}",
                    decoding="greedy",
                    train_seed=run.seed,
                    eval_seed=None,
                    prompt=f"What is {' + '.join(map(str, terms))}?",
                    completion=f"{steps.rpartition('=')[0]}={said}. The answer is {said}.",
                    reference=str(total),
                    extracted=str(said),
                    verdict="correct" if is_right else "wrong",
                    correct=is_right,
                    value=float(is_right),
                    truncated=False,
                    num_tokens=31,
                )
            )

    def datasets(self) -> None:
        for name, count in (("grade-school", 240), ("demonstrations", 600)):
            upload = incoming_folder(self.settings) / f"{name}.jsonl"
            rows = [
                {"prompt": f"What is {n} + {n + 3}?", "completion": f"The answer is {2 * n + 3}."} for n in range(count)
            ]
            upload.write_text("".join(json.dumps(row) + "\n" for row in rows))
            rows = keep_rows(self.settings, upload, "jsonl")
            Datasets(self.session).add_version(name, "jsonl", rows, {"kind": "upload"})
