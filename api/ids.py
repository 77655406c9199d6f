"""Ids in paths and queries."""

from uuid import UUID

from store.errors import NotFound
from store.ids import decode_id


def parse_id(prefix: str, text: str) -> UUID:
    """The UUID of an id in a path.

    Raises:
        NotFound: it is no id of this kind of object, and so there is no such object.
    """
    try:
        return decode_id(prefix, text)
    except ValueError:
        raise NotFound(_NAMES[prefix], text[:64]) from None


_NAMES = {
    "job": "job",
    "exp": "experiment",
    "run": "run",
    "ckpt": "checkpoint",
    "res": "result",
    "ds": "data set",
    "wrk": "worker",
    "key": "API key",
    "prj": "project",
    "aud": "audit entry",
    "mdl": "model",
    "suite": "suite",
    "vrd": "verdict",
    "whk": "webhook endpoint",
    "dlv": "delivery",
    "sch": "schedule",
    "fire": "fire",
}
