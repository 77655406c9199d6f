"""Idempotent POSTs: the reply is kept in the transaction that did the work, so that a retry gets it and does nothing.

A key lives with the API key that used it. Only successes are kept: an error rolled everything back, and a retry is
looked at again. Of two requests at once with one key the second waits for the first one's transaction and gets its
reply.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask

from api.audit import Trail
from api.auth import Principal
from api.bell import ring_due
from api.dependencies import DatabaseDep, PrincipalDep, SettingsDep, TrailDep
from api.errors import ApiError, FieldError
from store.database import Database
from store.repositories.keys import Keys
from store.settings import Settings
from store.submission import TRACEPARENT
from store.tracing import valid_traceparent


@dataclass(frozen=True, slots=True)
class Reply:
    """What the work of a POST answers."""

    status: int
    """200 where nothing changed, 201 for a new object, 202 for something that is still to happen."""
    body: BaseModel
    """The object."""
    location: str = ""
    """Path of a new object."""
    is_change: bool = True
    """Whether anything changed; what changed nothing is not in the audit log."""
    secret: dict[str, str] = field(default_factory=dict)
    """Fields that the first reply alone shows; they are not kept."""


@dataclass(frozen=True, slots=True)
class Once:
    """Does the work of one POST in one transaction, at most once per `Idempotency-Key`."""

    database: Database
    settings: Settings
    principal: Principal
    key: str | None
    request_sha256: str
    trail: Trail
    traceparent: str | None = None
    """Trace context that the client sent."""

    def run(self, work: Callable[[Session], Reply]) -> Response:
        """The reply of the work, or the kept one of an earlier request with the same key.

        Raises:
            ApiError: the key was used for another request.
        """
        with self.database.write() as session:
            session.info[TRACEPARENT] = self.traceparent
            if (kept := self._kept(session)) is not None:
                self.trail.is_over = True
                return kept
            reply = work(session)
            self.trail.tell(reply.body)
            self.trail.is_over = not reply.is_change
            document = reply.body.model_dump(mode="json")
            if self.key is not None:
                Keys(session).keep_reply(
                    api_key_id=self.principal.key_id,
                    key=self.key,
                    status_code=reply.status,
                    body={"body": document, "location": reply.location},
                )
        response = _response(reply.status, {**document, **reply.secret}, reply.location)
        response.background = BackgroundTask(ring_due, self.database, self.settings)
        return response

    def _kept(self, session: Session) -> Response | None:
        """The reply of an earlier request; None where this one is the first, which then holds the key."""
        if self.key is None:
            return None
        row = Keys(session).reserve(api_key_id=self.principal.key_id, key=self.key, request_sha256=self.request_sha256)
        if row is None:
            return None
        if row.request_sha256 != self.request_sha256:
            raise ApiError(422, "idempotency_key_reused", "this Idempotency-Key was used for another request")
        response = _response(row.status_code, row.body["body"], row.body["location"])
        response.headers["Idempotency-Replayed"] = "true"
        return response


def _response(status: int, document: Any, location: str) -> Response:
    return JSONResponse(document, status, {"Location": location} if location else None)


KeyHeader = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="A retry with the same key and body gets the first reply, and nothing is done twice.",
    ),
]


async def get_once(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    principal: PrincipalDep,
    trail: TrailDep,
    idempotency_key: KeyHeader = None,
) -> Once:
    """What does the work of a POST."""
    check_key(idempotency_key)
    request_sha256 = request_hash(request, await request.body())
    sent = valid_traceparent(request.headers.get("traceparent"))
    return Once(database, settings, principal, idempotency_key, request_sha256, trail, sent)


def check_key(key: str | None) -> None:
    """Refuses a key that no log shows as it is.

    Raises:
        ApiError: it holds something else than printable ASCII.
    """
    if key is not None and not (key.isascii() and key.isprintable()):
        error = FieldError(pointer="/header/idempotency-key", code="invalid_key", message="use printable ASCII")
        raise ApiError(422, "invalid_parameter", error.message, [error])


def request_hash(request: Request, content: bytes) -> str:
    """Hash of method, path, query and body, by which a retry is known as the same request.

    Args:
        content: the body, or the hash of a large one.
    """
    digest = hashlib.sha256(f"{request.method} {request.scope['path']}?".encode("utf-8", "replace"))
    digest.update(request.scope["query_string"] + b"\n" + content)
    return digest.hexdigest()


OnceDep = Annotated[Once, Depends(get_once)]
