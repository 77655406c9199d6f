"""What the store refuses. No status codes here: `api/errors.py` maps these."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


class StoreError(Exception):
    """Base of everything the store refuses."""


class NotFound(StoreError):
    """There is no such thing."""

    def __init__(self, what: str, identifier: object) -> None:
        self.what = what
        self.identifier = str(identifier)
        super().__init__(f"there is no {what} {self.identifier}")


class Gone(NotFound):
    """There was such a thing; it was deleted."""

    def __init__(self, what: str, identifier: object, reason: str, since: datetime) -> None:
        super().__init__(what, identifier)
        self.reason = reason
        """For a person."""
        self.since = since
        self.args = (f"the {what} {identifier} was deleted on {since:%Y-%m-%d}: {reason}",)


class Full(StoreError):
    """The disk has no room for anything new."""


class Conflict(StoreError):
    """The thing is in a state that does not allow this."""

    def __init__(self, code: str, message: str, current: str | None = None) -> None:
        self.code = code
        """Stable, for programs: `invalid_state`."""
        self.message = message
        self.current = current
        """The state it is in."""
        super().__init__(message)


class NotYours(StoreError):
    """The guard found no row: the attempt is over or another worker's. Kill the child, write nothing."""


class Invalid(StoreError):
    """A well-formed request that cannot be carried out: something it names does not exist or does not fit."""

    def __init__(self, pointer: str, message: str) -> None:
        self.pointer = pointer
        """JSON pointer into what was submitted: `/config/policy`."""
        self.message = message
        super().__init__(f"{pointer}: {message}")


@dataclass(frozen=True, slots=True)
class RowProblem:
    """What is wrong with one row of a file."""

    row: int
    """From 1; 0 for the file itself."""
    message: str
    """Never repeats a value."""


class InvalidRows(StoreError):
    """A file whose rows cannot be taken."""

    def __init__(self, problems: Sequence[RowProblem]) -> None:
        self.problems = list(problems)
        first = self.problems[0]
        super().__init__(f"row {first.row}: {first.message}")
