"""A rig with a suite: checkpoints are published, and evaluations end with the answers that a test says."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select

from store.ids import encode_id
from store.models.project import DEFAULT_PROJECT_ID
from store.models.record import Checkpoint
from store.models.run import Run
from store.models.suite import Suite, Verdict
from store.queue import Claim
from store.regression import change_suite, create_suite, document_of_suite, request_verdict
from store.repositories.aliases import Aliases
from store.repositories.suites import Suites, Verdicts
from store.rows import CheckpointRow, Collected, CompletionRow, ResultRow
from store.states import Outcome
from store.suite_specs import SuiteSpec
from tests.store.conftest import Rig

DECODING = "t0.6-p0.95"
GOOD, BAD = 0.9, 0.3
Answers = Mapping[int, Sequence[float | None]]
"""Eval seed -> the score of each example; None where our side failed."""


def answers(share: float, count: int = 100, seeds: Sequence[int] = (0, 1)) -> Answers:
    """A share of right answers, the same ones in every pass."""
    return {seed: [float(number < share * count) for number in range(count)] for seed in seeds}


class Laboratory:
    """A suite behind short words."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.database = rig.database

    def checkpoint(self, step: int = 10, **fields: Any) -> UUID:
        """A published model of a job of its own."""
        job = self.rig.submit("sft", priority=100, **fields)  # before evaluations that wait
        taken = self.rig.started()
        row = CheckpointRow(step=step, path=f"runs/{taken.run_id}/model", manifest_sha256="0" * 64, size_bytes=1)
        self.rig.finish(taken, collected=Collected(models=[row]))
        with self.database.read() as session:
            run = select(Run.id).where(Run.job_id == job.id).scalar_subquery()
            return session.scalars(select(Checkpoint.id).where(Checkpoint.run_id == run)).one()

    def name(self, alias: str, checkpoint_id: UUID) -> None:
        """Gives a checkpoint a name."""
        with self.database.write() as session:
            Aliases(session).put(alias, checkpoint_id)

    def named(self, alias: str) -> UUID:
        """The checkpoint that has a name."""
        with self.database.read() as session:
            return Aliases(session).get(alias).checkpoint_id

    def spec(self, **changes: Any) -> SuiteSpec:
        """A suite of one gate against `alias:champion`."""
        document = {
            "name": "nightly",
            "benchmarks": [{"name": "sums"}],
            "eval_seeds": [0, 1],
            "baseline": "alias:champion",
            "gates": [{"benchmark": "sums", "max_drop": 0.1}],
        }
        return SuiteSpec.model_validate_json(json.dumps(document | changes))

    def suite(self, **changes: Any) -> Suite:
        """Such a suite, created."""
        with self.database.write() as session:
            return create_suite(session, self.spec(**changes))

    def change(self, suite: Suite, **changes: Any) -> Suite:
        """The suite after a change of its spec."""
        with self.database.write() as session:
            document = document_of_suite(session, Suites(session).get(suite.id)) | changes
            return change_suite(session, suite.id, SuiteSpec.model_validate_json(json.dumps(document)))

    def request(self, suite: Suite, checkpoint_id: UUID, cause: str = "manual") -> Verdict:
        """A verdict, asked for."""
        with self.database.write() as session:
            return request_verdict(
                session,
                self.rig.settings,
                suite_id=suite.id,
                checkpoint_id=checkpoint_id,
                cause=cause,
                project_id=DEFAULT_PROJECT_ID,
            )

    def verdict(self, verdict_id: UUID) -> Verdict:
        """The row of a verdict."""
        with self.database.read() as session:
            return Verdicts(session).get(verdict_id)

    def verdicts(self) -> list[Verdict]:
        """All of them, oldest first."""
        with self.database.read() as session:
            return Verdicts(session).page(100, order="asc").rows

    def evaluate(self, by_checkpoint: Mapping[UUID, Answers], configuration: str = "") -> list[UUID]:
        """Ends every queued evaluation with the answers of its checkpoint; the checkpoints, in order."""
        done = []
        while (taken := self.rig.claim()) is not None:
            source = str(taken.spec["config"]["policy"])
            checkpoint_id = next(one for one in by_checkpoint if encode_id("ckpt", one) == source)
            self.end(taken, by_checkpoint[checkpoint_id], configuration)
            done.append(checkpoint_id)
        return done

    def end(self, taken: Claim, told: Answers, configuration: str = "") -> None:
        """Ends one evaluation."""
        results, completions = [], []
        for seed, scores in told.items():
            known = [score for score in scores if score is not None]
            results.append(
                ResultRow(
                    benchmark="sums",
                    metric="pass@1",
                    decoding=DECODING,
                    eval_seed=seed,
                    value=sum(known) / len(known) if known else None,
                    num_examples=len(scores),
                    num_unscored=len(scores) - len(known),
                    configuration=configuration,
                )
            )
            completions += [completion(seed, number, score) for number, score in enumerate(scores)]
        self.rig.finish(taken, collected=Collected(results=results, completions=completions))

    def fail(self, message: str) -> None:
        """Ends the next queued evaluation with an error of the user's."""
        self.rig.finish(self.rig.started(), Outcome.USER, message)


def completion(seed: int, number: int, score: float | None) -> CompletionRow:
    """An answer."""
    return CompletionRow(
        benchmark="sums",
        example_id=f"sums/{number}",
        decoding=DECODING,
        eval_seed=seed,
        prompt=f"{number} + 1 =",
        completion=" 2",
        reference="2",
        extracted="2" if score else None,
        verdict="error" if score is None else "correct" if score else "wrong",
        correct=None if score is None else bool(score),
        truncated=False,
        value=score,
    )
