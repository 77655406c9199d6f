"""cancel, pause, resume and retry, which jobs, experiments and runs have in common."""

from collections.abc import Callable
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.auth import requires
from api.bodies import no_body
from api.failures import may_fail
from api.idempotency import OnceDep, Reply
from api.ids import parse_id

Act = Callable[[Session, UUID], Any]
Read = Callable[[Session, UUID], BaseModel]


def add_verbs(
    router: APIRouter,
    prefix: str,
    answer: type[BaseModel],
    *,
    read: Read,
    version: Callable[[Session, UUID], int],
    verbs: dict[str, tuple[Act, str]],
) -> None:
    """Adds `POST /{id}/VERB` routes: 202 when something changed, 200 for a repetition, 409 when it is too late.

    Args:
        prefix: of the ids.
        version: what grows when a verb changes something.
        verbs: name -> what it does to the store, and the sentence about it.
    """
    for name, (act, description) in verbs.items():
        router.add_api_route(
            f"/{{{prefix}_id}}/{name}",
            _endpoint(prefix, act, read, version),
            methods=["POST"],
            name=name,
            operation_id=f"{router.tags[0]}.{name}",
            description=description,
            status_code=202,
            response_model=answer,
            responses={200: {"model": answer, "description": "Asked for before."}},
            dependencies=[Depends(no_body)],
        )


def _endpoint(prefix: str, act: Act, read: Read, version: Callable[[Session, UUID], int]) -> Callable[..., Response]:
    @may_fail("invalid_state")
    @requires("write")
    def endpoint(identifier: Annotated[str, Path(alias=f"{prefix}_id")], once: OnceDep) -> Response:
        subject = parse_id(prefix, identifier)

        def work(session: Session) -> Reply:
            before = version(session, subject)
            act(session, subject)
            session.expire_all()
            is_change = version(session, subject) != before
            return Reply(202 if is_change else 200, read(session, subject), is_change=is_change)

        return once.run(work)

    return endpoint
