"""The call for the overview."""

from api.calls.base import Ask
from api.overview_schemas import OverviewRead
from api.transport import Call


def overview() -> Ask[OverviewRead]:
    """What goes on."""
    return Ask(Call("GET", "/v1/overview"), OverviewRead)
