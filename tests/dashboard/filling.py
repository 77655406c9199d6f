"""Rows for pages to show: an experiment with runs in every state, hostile text wherever text comes from outside."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from string import Formatter
from typing import TypeVar
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from lco.metrics import STABILITY
from store.database import Database
from store.ids import encode_id
from store.models.base import utc_now
from store.models.project import DEFAULT_PROJECT_ID
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
    Rollout,
    Run,
    RunDependency,
    Worker,
)
from store.repositories.audit import Audit, Change
from store.repositories.datasets import Datasets
from store.repositories.keys import Keys
from store.repositories.projects import Projects
from store.settings import Settings
from store.states import RunState, job_status
from store.uploads import incoming_folder, keep_rows
from tests.dashboard.filling_alerts import fill_alerts
from tests.dashboard.judging import judge

HOSTILE = '"\'><script>window.__xss=1</script><img src=x onerror="window.__xss=2">{{7*7}}</pre></title>'
"""Markup, both quotes, an early end of the elements around it, and a template's expression."""
NUM_STEPS = 30
STABLE_KEYS = 5
"""How many of the metrics of stability each training run has."""

_PLAN: list[tuple[str, str, str, list[str], list[RunState]]] = [
    ("sft", "sft", "sft", [], [RunState.SUCCEEDED, RunState.SUCCEEDED]),
    ("pairs", "pairs", "pairs", ["sft"], [RunState.SUCCEEDED, RunState.QUARANTINED]),
    ("rm", "dpo", "rm", ["sft", "pairs"], [RunState.SUCCEEDED, RunState.STOPPING]),
    ("lco", "train", "lco", ["sft", "rm"], [RunState.SUCCEEDED, RunState.RUNNING]),
    ("ppo", "train", "ppo", ["sft"], [RunState.RETRY_WAIT, RunState.FAILED]),
    ("grpo", "train", "grpo", ["sft"], [RunState.QUEUED, RunState.LEASED]),
    ("measure-lco", "evaluation", "lco", ["lco"], [RunState.SUCCEEDED, RunState.BLOCKED]),
    ("measure-sft", "evaluation", "sft", ["sft"], [RunState.SUCCEEDED, RunState.SUCCEEDED]),
    ("measure-ppo", "evaluation", "ppo", ["ppo"], [RunState.PAUSED, RunState.CANCELLED]),
]

_MATRIX = {
    "axes": {
        "method": ["lco", "ppo", "grpo"],
        "stage": [{"name": "train", "prefix": ""}, {"name": HOSTILE, "prefix": "measure-"}],
    },
    "jobs": [{"each": ["method", "stage"], "name": "{stage.prefix}{method}"}],
}
"""What the experiment was expanded from; a job that this names and that is missing was left out."""

QUERIES = {
    "/jobs": ["?kind=train", "?kind=sft&status=failed"],
    "/jobs/{job_id}": ["?level=error"],
    "/experiments/{experiment_id}/stability": ["?kind=sft"],
}
"""Route -> further forms of its page, beside the one without a query."""


@dataclass
class Filled:
    """Where things are."""

    experiment: str
    dataset: str = ""
    projects: list[str] = field(default_factory=list)
    jobs: dict[str, str] = field(default_factory=dict)
    """Name -> id."""
    runs: dict[tuple[str, int], str] = field(default_factory=dict)
    """(name of the job, seed) -> id."""
    checkpoints: list[str] = field(default_factory=list)
    suite: str = ""
    """Id."""
    verdicts: list[str] = field(default_factory=list)
    """One of each kind."""
    alerts: dict[str, list[str]] = field(default_factory=dict)
    """The name of a parameter -> ids of schedules and of endpoints."""

    def parameters(self) -> dict[str, list[str]]:
        """The name of a parameter in a page's path -> what to fill in, each a page that looks different.

        A new page whose parameter is missing here fails the walk through all pages: seed its resource, and name it.
        """
        return {
            "experiment_id": [self.experiment],
            "job_id": [self.jobs[name] for name in ("lco", "measure-sft", "ppo")],
            "run_id": [self.runs[place] for place in (("measure-lco", 0), ("lco", 1), ("ppo", 1), ("grpo", 0))],
            "other_id": [self.runs["measure-sft", 0]],
            "ds_id": [self.dataset],
            "prj_id": self.projects,
            "sample_id": [self.jobs["ask"]],
            "ckpt_id": self.checkpoints[:2],
            "suite_id": [self.suite],
            "verdict_id": self.verdicts,
            **self.alerts,
        }

    def queries(self) -> dict[str, list[str]]:
        """As `QUERIES`, with ids in them."""
        some = [self.runs[place] for place in (("lco", 1), ("measure-lco", 0), ("measure-sft", 0))]
        again = [f"?again={self.jobs['ask']}", "?policy=alias:best"]
        return {
            "/sample": again,
            "/runs/{run_id}/rollouts": ["?iteration=0"],
            "/compare": [f"?ids={some[0]}", f"?ids={','.join(some)}"],
        }

    def addresses(self, routes: Iterable[str]) -> list[str]:
        """The pages of some routes, in their order: every form of each one.

        Raises:
            LookupError: nothing is seeded for a parameter.
        """
        known = self.parameters()
        found = []
        for route in routes:
            names = [name for _, name, _, _ in Formatter().parse(route) if name]
            if missing := [name for name in names if name not in known]:
                raise LookupError(f"{route}: seed {missing[0]} in tests/dashboard/filling.py, Filled.parameters")
            choices = known[names[0]] if names else [""]
            plain = [
                route.format(**{name: known[name][0] for name in names} | dict.fromkeys(names[:1], one))
                for one in choices
            ]
            queries = [*QUERIES.get(route, []), *self.queries().get(route, [])]
            found += [*plain, *(plain[0] + query for query in queries)]
        return found

    def pages(self) -> list[str]:
        """Every page that shows one thing."""
        return [
            f"/datasets/{self.dataset}",
            *(f"/settings/projects/{project}" for project in self.projects),
            f"/experiments/{self.experiment}",
            f"/experiments/{self.experiment}/stability",
            f"/experiments/{self.experiment}/stability?kind=sft",
            f"/experiments/{self.experiment}/compare",
            f"/runs/{self.runs['lco', 0]}/rollouts",
            f"/runs/{self.runs['lco', 1]}/rollouts?iteration=0",
            f"/runs/{self.runs['grpo', 0]}/rollouts",
            f"/sample/{self.jobs['ask']}",
            f"/sample?again={self.jobs['ask']}",
            f"/compare{self.queries()['/compare'][1]}",
            f"/runs/{self.runs['measure-lco', 0]}/against/{self.runs['measure-sft', 0]}",
            *(f"/checkpoints/{checkpoint}" for checkpoint in self.checkpoints),
            "/checkpoints?deleted=yes",
            "/settings/usage",
            *(f"/schedules/{schedule}" for schedule in self.alerts["sch_id"]),
            *(f"/settings/webhooks/{endpoint}" for endpoint in self.alerts["whk_id"]),
            *(f"/jobs/{job}" for job in self.jobs.values()),
            *(f"/runs/{run}" for run in self.runs.values()),
            f"/benchmarks/{self.suite}",
            *(f"/verdicts/{verdict}" for verdict in self.verdicts),
        ]


def fill(database: Database, settings: Settings) -> Filled:
    """Writes everything in one transaction; the rows of a data set into its file."""
    with database.write() as session:
        filled = _Filler(session).fill()
        filled.dataset = _fill_dataset(session, settings)
        filled.projects = _fill_projects(session)
        filled.alerts = fill_alerts(session, filled.jobs["lco"], HOSTILE)
    return filled


def _fill_dataset(session: Session, settings: Settings) -> str:
    upload = incoming_folder(settings) / "rows.jsonl"
    upload.write_text("".join(json.dumps({"prompt": f"prompt {n}", HOSTILE[:60]: HOSTILE}) + "\n" for n in range(40)))
    row, _ = Datasets(session).add_version(
        "rows", "jsonl", keep_rows(settings, upload, "jsonl"), {"kind": "upload", "from": "rows.jsonl"}
    )
    return encode_id("ds", row.id)


def _fill_projects(session: Session) -> list[str]:
    """The default project with quotas, one of them used up, and an archived one; keys and entries of the audit log."""
    quotas = {"max_gpu_slots": 4, "max_running_runs": 3, "max_storage_bytes": 10**10, "max_judge_spend": 20.0}
    Projects(session).change(DEFAULT_PROJECT_ID, quotas)
    other = Projects(session).create("other")
    Projects(session).archive(other.id)
    keys = Keys(session)
    for number, project_id in enumerate((DEFAULT_PROJECT_ID, other.id)):
        name = HOSTILE[:100]
        key = keys.create(name=name, secret_sha256=f"{number}", scope="write", project_id=project_id)
        change = Change(
            api_key_id=key.id, key_name=name, via="cookie", action="projects.change", request_id="r",
            object_id=encode_id("prj", project_id), details={"name": HOSTILE, "max_gpu_slots": None},
        )  # fmt: skip
        Audit(session).add(change, project_id)
    keys.revoke(key.id)
    return [encode_id("prj", project_id) for project_id in (DEFAULT_PROJECT_ID, other.id)]


Row = TypeVar("Row")


class _Filler:
    def __init__(self, session: Session) -> None:
        self.session = session
        self.now = utc_now()
        self.started = self.now - timedelta(seconds=90)

    def _add(self, row: Row) -> Row:
        self.session.add(row)
        self.session.flush()
        return row

    def fill(self) -> Filled:
        """The rows of every table that a page reads."""
        self.worker = self._add(
            Worker(
                host=f"host-{HOSTILE}", pid=4711, dispatcher="local", queues=["lco.cpu"], labels=[HOSTILE], slots=2,
                gpus=[0, 1], started_at=self.started, last_seen_at=self.now,
            )
        )  # fmt: skip
        self._add(
            Worker(
                host="silent", pid=1, dispatcher="celery", queues=["lco.gpu"], slots=4, is_draining=True,
                started_at=self.started, last_seen_at=self.now - timedelta(hours=1),
            )
        )  # fmt: skip
        document = {"name": "demo", **_MATRIX}
        experiment = self._add(
            Experiment(name="demo", description=HOSTILE, document=document, details={"note": HOSTILE})
        )
        filled = Filled(encode_id("exp", experiment.id))
        runs: dict[tuple[str, int], Run] = {}
        for name, kind, method, needs, states in _PLAN:
            config = {"policy": "job:sft", "note": HOSTILE}
            job = self._add(
                Job(
                    experiment_id=experiment.id, name=name, kind=kind, method=method, details={"note": HOSTILE},
                    spec={"kind": kind, "name": name, "config": config}, status=job_status(states),
                )
            )  # fmt: skip
            filled.jobs[name] = encode_id("job", job.id)
            for seed, state in enumerate(states):
                run = runs[name, seed] = self._add(self._run(job, seed, state))
                filled.runs[name, seed] = encode_id("run", run.id)
                for needed in needs:
                    self._add(RunDependency(run_id=run.id, needs_id=runs[needed, seed].id))
                self._leave(job, run, experiment.id)
        filled.checkpoints = [encode_id("ckpt", row.id) for row in self._kept(runs["sft", 0])]
        gone = self._kept(runs["sft", 1])[0]
        gone.deleted_at, gone.deleted_reason = self.now, HOSTILE
        self._ask(filled)
        self._add(Job(name="alone", kind="train", method="alone", spec={}))
        judged = [runs["lco", 0], runs["ppo", 1], runs["measure-sft", 0], runs["measure-lco", 0]]
        filled.suite, filled.verdicts = judge(self.session, judged, HOSTILE, self.now)
        return filled

    def _ask(self, filled: Filled) -> None:
        """A sampling of two policies, under way."""
        config = {"policies": [{"policy": "model:a", "label": HOSTILE[:100]}, {"policy": "model:b"}]}
        config |= {"prompts": [HOSTILE, "two"], "decodings": ["greedy", "t1.0"]}
        spec = {"kind": "sample", "name": "ask", "config": config}
        job = self._add(Job(name="ask", kind="sample", method="ask", spec=spec, status="running"))
        run = self._add(self._run(job, 0, RunState.RUNNING))
        filled.jobs["ask"], filled.runs["ask", 0] = encode_id("job", job.id), encode_id("run", run.id)

    def _kept(self, run: Run) -> list[Checkpoint]:
        """The checkpoints of a run, the published model first."""
        mine = select(Checkpoint).where(Checkpoint.run_id == run.id)
        return list(self.session.scalars(mine.order_by(Checkpoint.id.desc())))

    def _run(self, job: Job, seed: int, state: RunState) -> Run:
        is_begun = state not in (RunState.QUEUED, RunState.BLOCKED, RunState.PAUSED, RunState.LEASED)
        is_held = state in (RunState.LEASED, RunState.RUNNING, RunState.STOPPING)
        is_over = state in (RunState.SUCCEEDED, RunState.FAILED, RunState.QUARANTINED, RunState.CANCELLED)
        return Run(
            job_id=job.id, kind=job.kind, seed=seed, queue="lco.cpu", state=state, status_reason=HOSTILE,
            attempt=int(is_begun), worker_id=self.worker.id if is_held else None,
            hb_at=self.now if is_held else None, progress_step=NUM_STEPS if is_begun else 0, progress_total=60,
            progress_message=HOSTILE, progress_at=self.now, blocked_on=int(state == RunState.BLOCKED),
            latest_metrics={"train/loss": 0.25, HOSTILE: None} if is_begun else {},
            error_code="oom" if state == RunState.FAILED else "",
            error_message=HOSTILE if state == RunState.FAILED else "",
            started_at=self.started if is_begun else None, finished_at=self.now if is_over else None,
        )  # fmt: skip

    def _leave(self, job: Job, run: Run, experiment_id: UUID) -> None:
        """What a run that has begun leaves behind."""
        job.event_seq += 1
        self._add(
            Event(job_id=job.id, seq=job.event_seq, run_id=run.id, type="run.state", level="warning", message=HOSTILE)
        )
        if not run.attempt:
            return
        is_open = run.finished_at is None and run.state != RunState.RETRY_WAIT
        self._add(
            Attempt(
                run_id=run.id, n=1, worker_id=self.worker.id, host=HOSTILE[:60], pid=5, error_message=HOSTILE,
                outcome=None if is_open else "lost", started_at=self.started, ended_at=None if is_open else self.now,
            )
        )  # fmt: skip
        self._add(LogChunk(run_id=run.id, attempt=1, chunk=0, text=f"\x1b[32mINFO\x1b[0m {HOSTILE}\n"))
        if job.kind in ("sft", "dpo", "train"):
            for step in range(1, NUM_STEPS + 1):
                value = None if step == 7 else math.exp(-step / 10)
                self.session.add(Metric(run_id=run.id, key="train/loss", step=step, value=value, attempt=1))
                self.session.add(Metric(run_id=run.id, key=HOSTILE[:100], step=step, value=float(step), attempt=1))
                for place, key in enumerate(STABILITY[:STABLE_KEYS]):
                    value = (place + 1) * math.exp(-step / 20) + 0.1 * run.seed
                    self.session.add(Metric(run_id=run.id, key=key, step=step, value=value, attempt=1))
        if job.kind in ("sft", "dpo", "train") and run.state == RunState.SUCCEEDED:
            self._keep(job, run)
        if job.kind == "train":
            self._sample(run)
        if job.kind == "evaluation" and run.state == RunState.SUCCEEDED:
            self._measure(job, run, experiment_id)

    def _sample(self, run: Run) -> None:
        """Rollouts of two iterations: hostile text, a line end, a token without text, a reward that is missing."""
        for iteration in (0, 10):
            for position in range(3):
                pieces = [HOSTILE, "\n", " 12", ""]
                self._add(
                    Rollout(
                        run_id=run.id, iteration=iteration, position=position, attempt=1, prompt_id="p",
                        prompt=f"{iteration} {HOSTILE}", reference=HOSTILE, num_tokens=9, is_truncated=position == 1,
                        reward=None if position == 2 else 0.5, is_correct=position == 0, parts={HOSTILE[:40]: 0.25},
                        pieces=pieces, advantages=[-1.5, 0.0, 0.75, None], logprobs=[-0.01, -1.0, -4.0, None],
                    )
                )  # fmt: skip

    def _keep(self, job: Job, run: Run) -> None:
        """Two checkpoints to resume from, and the published model, which has a name."""
        for kind, step in (("state", 10), ("state", NUM_STEPS), ("model", NUM_STEPS)):
            row = self._add(
                Checkpoint(
                    run_id=run.id, attempt=1, kind=kind, step=step, path=f"runs/{run.id}/1/{kind}-{step}",
                    manifest_sha256="0" * 64, size_bytes=123_456_789, is_pinned=step == 10,
                )
            )  # fmt: skip
        if run.seed == 0:
            self._add(Alias(name=f"best-{job.name}", checkpoint_id=row.id))

    def _measure(self, job: Job, run: Run, experiment_id: UUID) -> None:
        """Two decodings of one benchmark, and thirty completions."""
        base = {"sft": 0.40, "lco": 0.60}[job.method] + run.seed / 100
        for decoding, eval_seeds in (("greedy", [None]), ("t1.0", [0, 1])):
            for eval_seed in eval_seeds:
                self._add(
                    Result(
                        run_id=run.id, job_id=job.id, experiment_id=experiment_id, method=job.method, benchmark="sums",
                        metric="pass@1", decoding=decoding, train_seed=run.seed, eval_seed=eval_seed,
                        value=base + (eval_seed or 0) / 50, num_examples=1000, num_unscored=1,
                    )
                )  # fmt: skip
        for position in range(30):
            verdict = ("correct", "wrong", "no_answer")[position % 3]
            self.session.add(
                Completion(
                    run_id=run.id, position=position, benchmark="sums", example_id=f"test-{position}",
                    decoding="greedy", train_seed=run.seed, eval_seed=None, prompt=f"prompt {position} {HOSTILE}",
                    completion=f"completion {position} {HOSTILE}", reference=HOSTILE,
                    extracted=None if verdict == "no_answer" else HOSTILE, verdict=verdict,
                    correct=verdict == "correct", truncated=position == 0,
                )
            )  # fmt: skip
