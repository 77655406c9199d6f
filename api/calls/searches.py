"""Calls about searches."""

from api.calls.base import Ask
from api.search_schemas import SearchRead
from api.transport import Call


def search(experiment: str) -> Ask[SearchRead]:
    """The trials of an experiment's search."""
    return Ask(Call("GET", f"/v1/experiments/{experiment}/search"), SearchRead)
