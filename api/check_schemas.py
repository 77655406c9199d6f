"""What would become of a document, were it submitted."""

from typing import Literal

from api.schemas import Wire
from api.service_schemas import DiffRead


class CheckedJob(Wire):
    """A job that the document makes."""

    name: str
    kind: str
    method: str
    """The name under which its results would be tabled."""
    needs: list[str]
    """Names of the jobs that it waits for."""
    seeds: list[int]
    num_reused: int
    """Runs that would take over what an earlier one of the same content has made."""


class CheckRead(Wire):
    """What a document would make; nothing was submitted."""

    object: Literal["check"] = "check"
    name: str
    num_jobs: int
    num_runs: int
    num_reused: int
    jobs: list[CheckedJob]
    """In an order in which each stands after those it needs."""
    changes: list[DiffRead]
    """Of a changed copy: what differs from the original, place by place."""
