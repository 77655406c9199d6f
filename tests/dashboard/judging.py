"""A suite with verdicts in every state, for pages to show; hostile text wherever text comes from outside."""

import random
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from store.gates import Measured, decide
from store.ids import encode_id, new_id
from store.models.project import DEFAULT_PROJECT_ID
from store.models.record import Checkpoint
from store.models.suite import Suite, SuiteVersion, Verdict
from store.suite_specs import Plan, Triggers, whole_gates
from store.verdicts import figures_document

PLAN = {
    "benchmarks": [{"name": "sums"}],
    "decodings": ["greedy", "t1.0"],
    "baseline": "alias:champion",
    "gates": [
        {"benchmark": "sums", "decoding": "greedy", "max_drop": 0.05, "min_value": 0.5},
        {"benchmark": "sums", "decoding": "t1.0", "max_drop": 0.02},
    ],
    "promote": {"alias": "champion"},
}
SHARES = (0.7, 0.72, 0.69, 0.73, 0.45, 0.71, 0.92, 0.74)
"""The share of right answers of each judged checkpoint; the baseline's is 0.7."""


def judge(session: Session, runs: list[Any], hostile: str, now: datetime) -> tuple[str, list[str]]:
    """Writes them; the ids of the suite and of a verdict of each kind.

    Args:
        runs: those that made checkpoints, and two evaluations at the end.
    """
    plan = Plan.model_validate(PLAN, strict=False)
    triggers = Triggers.model_validate({"checkpoints": {"kinds": ["train"]}, "aliases": ["candidate"]}, strict=False)
    suite = Suite(name="nightly", description=hostile, triggers=triggers.model_dump(mode="json"))
    session.add(suite)
    session.flush()
    session.add(SuiteVersion(suite_id=suite.id, version=1, plan=plan.model_dump(mode="json")))
    session.flush()
    baseline = _checkpoint(session, runs[0], 0, now - timedelta(days=20))
    names = {}
    generator = random.Random(1)
    for number, share in enumerate(SHARES):
        checkpoint = _checkpoint(session, runs[number % 2], 100 + number, now - timedelta(days=19 - 2 * number))
        gates = [_measured(gate, share, generator) for gate in whole_gates(plan)]
        outcome, figures = decide(gates, plan.level, plan.max_left_out)
        documents = [figures_document(gate, one) for gate, one in zip(whole_gates(plan), figures, strict=True)]
        verdict = _verdict(
            suite, checkpoint, baseline, hostile, state="decided", outcome=outcome, figures=documents, decided_at=now,
            job_id=runs[-1].job_id, baseline_job_id=runs[-2].job_id,
            promoted_alias="champion" if outcome == "improved" else "",
            promotion_note=hostile if outcome == "pass" else "",
        )  # fmt: skip
        session.add(verdict)
        names[outcome] = verdict.id
    for number, state in enumerate(("pending", "running", "error")):
        checkpoint = _checkpoint(session, runs[0], 200 + number, now)
        verdict = _verdict(suite, checkpoint, baseline, hostile, state=state)
        session.add(verdict)
        names[state] = verdict.id
    session.flush()
    return encode_id("suite", suite.id), [encode_id("vrd", one) for one in names.values()]


def _measured(gate: Any, share: float, generator: random.Random) -> Measured:
    def answers(one: float) -> dict[str, float]:
        return {f"test-{number}": float(generator.random() < one) for number in range(400)}

    return Measured(
        min_value=gate.min_value,
        max_drop=gate.max_drop,
        values=answers(share),
        baseline=answers(0.7),
        num_examples=402,
        width=1.0,
    )


def _checkpoint(session: Session, run: Any, step: int, moment: datetime) -> UUID:
    row = Checkpoint(
        id=new_id(), run_id=run.id, attempt=1, kind="model", step=step, path="p", manifest_sha256="0" * 64,
        size_bytes=1, created_at=moment,
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row.id


def _verdict(suite: Suite, checkpoint_id: UUID, baseline_id: UUID, hostile: str, **fields: Any) -> Verdict:
    return Verdict(
        id=new_id(), project_id=DEFAULT_PROJECT_ID, suite_id=suite.id, version=1, checkpoint_id=checkpoint_id,
        baseline_id=baseline_id, cause=hostile, reason=hostile, level=0.05, **fields,
    )  # fmt: skip
