"""Suites and verdicts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from store.database import database_time
from store.errors import Conflict, NotFound
from store.ids import encode_id, new_id
from store.models.record import Checkpoint
from store.models.suite import Suite, SuiteVersion, Verdict
from store.repositories.paging import Order, Page, keyset_page
from store.suite_specs import Plan, Triggers


class Suites:
    """Queries of suites and their versions."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, suite_id: UUID) -> Suite:
        """One suite.

        Raises:
            NotFound: there is none.
        """
        suite = self._session.scalar(select(Suite).where(Suite.id == suite_id))
        if suite is None:
            raise NotFound("suite", encode_id("suite", suite_id))
        return suite

    def create(self, name: str, description: str, triggers: Triggers, plan: dict[str, Any]) -> Suite:
        """A suite and its first version.

        Raises:
            Conflict: the project has one of this name.
        """
        moment = database_time(self._session)
        suite = Suite(
            id=new_id(),
            name=name,
            description=description,
            triggers=triggers.model_dump(mode="json"),
            watched_from=moment,
            scanned_to=moment,
            created_at=moment,
            updated_at=moment,
        )
        try:
            with self._session.begin_nested():
                self._session.add(suite)
        except IntegrityError:
            raise _name_taken(name) from None
        self._session.add(SuiteVersion(suite_id=suite.id, version=1, plan=plan, created_at=moment))
        self._session.flush()
        return suite

    def change(
        self, suite: Suite, name: str, description: str, triggers: dict[str, Any], plan: dict[str, Any] | None
    ) -> None:
        """What a suite is called, is for, and is triggered by; and its next version, where its plan changes.

        The caller holds the suite's row.

        Raises:
            Conflict: the project has another one of this name.
        """
        moment = database_time(self._session)
        if triggers["checkpoints"] != suite.triggers["checkpoints"]:
            suite.watched_from = suite.scanned_to = moment  # what is older was never meant
        suite.description, suite.triggers, suite.updated_at = description, triggers, moment
        if plan is not None:
            suite.version += 1
            self._session.add(SuiteVersion(suite_id=suite.id, version=suite.version, plan=plan, created_at=moment))
        suite.name = name
        try:
            with self._session.begin_nested():
                self._session.flush()
        except IntegrityError:
            raise _name_taken(name) from None

    def locked(self, suite_id: UUID) -> Suite:
        """One suite, whose row no other transaction changes before this one ends.

        Raises:
            NotFound: there is none.
        """
        query = select(Suite).where(Suite.id == suite_id).with_for_update()
        suite = self._session.scalar(query.execution_options(populate_existing=True))
        if suite is None:
            raise NotFound("suite", encode_id("suite", suite_id))
        return suite

    def archive(self, suite_id: UUID, *, is_archived: bool = True) -> Suite:
        """Takes a suite out of use, or back into it; what happened meanwhile triggers nothing.

        Raises:
            NotFound: there is none.
        """
        suite = self.locked(suite_id)
        moment = database_time(self._session)
        if is_archived and suite.archived_at is None:
            suite.archived_at = suite.updated_at = moment
        elif not is_archived and suite.archived_at is not None:
            suite.archived_at = None
            suite.watched_from = suite.scanned_to = suite.updated_at = moment
        self._session.flush()
        return suite

    def page(
        self,
        limit: int = 20,
        after: UUID | None = None,
        before: UUID | None = None,
        order: Order = "desc",
        *,
        name: str | None = None,
        is_archived: bool | None = None,
    ) -> Page[Suite]:
        """Suites that meet every filter given."""
        query = select(Suite)
        if name is not None:
            query = query.where(Suite.name == name)
        if is_archived is not None:
            query = query.where(Suite.archived_at.is_not(None) if is_archived else Suite.archived_at.is_(None))
        return keyset_page(self._session, query, Suite.id, limit=limit, after=after, before=before, order=order)

    def plan(self, suite_id: UUID, version: int) -> Plan:
        """What a version measures and asks.

        Raises:
            NotFound: the suite has no such version.
        """
        row = self._session.get(SuiteVersion, (suite_id, version))
        if row is None:
            raise NotFound("version of the suite", version)
        return Plan.model_validate(row.plan, strict=False)

    def plans(self, versions: Iterable[tuple[UUID, int]]) -> dict[tuple[UUID, int], SuiteVersion]:
        """Some versions, by suite and number."""
        wanted = sorted(set(versions))
        query = select(SuiteVersion).where(tuple_(SuiteVersion.suite_id, SuiteVersion.version).in_(wanted))
        return {(row.suite_id, row.version): row for row in self._session.scalars(query)} if wanted else {}

    def names(self, suite_ids: Iterable[UUID]) -> dict[UUID, str]:
        """The names of some suites."""
        query = select(Suite.id, Suite.name).where(Suite.id.in_(sorted(set(suite_ids))))
        return {row.id: row.name for row in self._session.execute(query)}


def _name_taken(name: str) -> Conflict:
    return Conflict("name_taken", f"there is a suite {name!r} already; change it, or take another name")


@dataclass(frozen=True, slots=True)
class Counts:
    """How many verdicts of a suite came to what."""

    by_outcome: dict[str, int]
    num_open: int
    num_errors: int


class Verdicts:
    """Queries of verdicts."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, verdict_id: UUID) -> Verdict:
        """One verdict.

        Raises:
            NotFound: there is none.
        """
        verdict = self._session.scalar(select(Verdict).where(Verdict.id == verdict_id))
        if verdict is None:
            raise NotFound("verdict", encode_id("vrd", verdict_id))
        return verdict

    def page(
        self,
        limit: int = 20,
        after: UUID | None = None,
        before: UUID | None = None,
        order: Order = "desc",
        *,
        suite_id: UUID | None = None,
        checkpoint_id: UUID | None = None,
        state: str | None = None,
        outcome: str | None = None,
    ) -> Page[Verdict]:
        """Verdicts that meet every filter given."""
        query = select(Verdict)
        for column, value in (
            (Verdict.suite_id, suite_id),
            (Verdict.checkpoint_id, checkpoint_id),
            (Verdict.state, state),
            (Verdict.outcome, outcome),
        ):
            if value is not None:
                query = query.where(column == value)
        return keyset_page(self._session, query, Verdict.id, limit=limit, after=after, before=before, order=order)

    def history(self, suite_id: UUID, limit: int) -> Sequence[tuple[Verdict, Checkpoint]]:
        """The newest decided verdicts of a suite, in the order in which their checkpoints were written."""
        query = (
            select(Verdict, Checkpoint)
            .join(Checkpoint, Checkpoint.id == Verdict.checkpoint_id)
            .where(Verdict.suite_id == suite_id, Verdict.state == "decided")
            .order_by(Checkpoint.created_at.desc(), Checkpoint.id.desc(), Verdict.version.desc())
            .limit(limit)
        )
        return [(row[0], row[1]) for row in self._session.execute(query)][::-1]

    def latest(self, suite_ids: Iterable[UUID]) -> dict[UUID, Verdict]:
        """The newest verdict of each of some suites that has one."""
        rank = func.row_number().over(partition_by=Verdict.suite_id, order_by=Verdict.id.desc())
        ranked = select(Verdict.id, rank.label("rank")).where(Verdict.suite_id.in_(sorted(set(suite_ids)))).subquery()
        query = select(Verdict).join(ranked, ranked.c.id == Verdict.id).where(ranked.c.rank == 1)
        return {row.suite_id: row for row in self._session.scalars(query)}

    def counts(self, suite_ids: Iterable[UUID]) -> dict[UUID, Counts]:
        """How many verdicts of each of some suites came to what; every suite has an entry."""
        wanted = sorted(set(suite_ids))
        query = (
            select(Verdict.suite_id, Verdict.state, Verdict.outcome, func.count())
            .where(Verdict.suite_id.in_(wanted))
            .group_by(Verdict.suite_id, Verdict.state, Verdict.outcome)
        )
        found = {suite_id: Counts({}, 0, 0) for suite_id in wanted}
        for suite_id, state, outcome, count in self._session.execute(query):
            old = found[suite_id]
            if outcome is not None:
                old.by_outcome[outcome] = count
            else:
                is_open = state != "error"
                found[suite_id] = Counts(
                    old.by_outcome, old.num_open + count * is_open, old.num_errors + count * (not is_open)
                )
        return found
