"""Signing in and out: a key or a one-time link becomes a session cookie."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request, Response
from sqlalchemy.orm import Session

from api import sessions
from api.auth import SESSION_COOKIE, requires
from api.dashboard.pages import page
from api.dependencies import DatabaseDep
from store.ids import encode_id
from store.models.access import ApiKey
from store.repositories.audit import Audit, Change

router = APIRouter(include_in_schema=False)

_WRONG_KEY = "This is no active API key."
_USED_LINK = "This link was used already, or is too old. Sign in with an API key."


@router.get("/login")
@requires("open")
def show(
    request: Request,
    link: Annotated[str, Query(max_length=200)] = "",
    after: Annotated[str, Query(alias="next", max_length=2000)] = "/",
) -> Response:
    """The form for a key; with a one-time link's token, a form that sends it.

    A link is redeemed by the form, not by this request: whatever merely looks at the address (a preview, a prefetch)
    does not use it up, and the request that goes on comes from our own page, as SameSite=Strict demands.
    """
    return page(
        request,
        "login_link.html" if link else "login.html",
        link=link,
        next=sessions.local_path(after),
        problem="",
    )


@router.post("/login")
@requires("open")
def sign_in(
    request: Request,
    database: DatabaseDep,
    key: Annotated[str, Form(max_length=200)] = "",
    link: Annotated[str, Form(max_length=200)] = "",
    after: Annotated[str, Form(alias="next", max_length=2000)] = "/",
) -> Response:
    """Opens a session and goes on to where the browser wanted to be."""
    with database.write() as session:
        opened = sessions.redeem_link(session, link) if link else sessions.open_session(session, key.strip())
        if opened is not None:
            _note(session, request, opened[1], "link" if link else "key")
    goal = sessions.local_path(after)
    if opened is None:
        problem = _USED_LINK if link else _WRONG_KEY
        return page(request, "login.html", 401, next=goal, problem=problem)
    response = _redirect(goal)
    sessions.set_session_cookie(response, opened[0], secure=request.app.state.settings.secure_cookies)
    return response


def _note(session: Session, request: Request, key: ApiKey, by: str) -> None:
    """Who signed in, for the audit log."""
    change = Change(
        api_key_id=key.id,
        key_name=key.name,
        via="cookie",
        action="sessions.create",
        object_id=encode_id("key", key.id),
        request_id=request.scope.get("lco.request_id", ""),
        details={"by": by},
    )
    Audit(session).add(change, key.project_id)


@router.post("/logout", operation_id="sessions.delete")
@requires("read")
def sign_out(request: Request, database: DatabaseDep) -> Response:
    """Ends the session."""
    with database.write() as session:
        sessions.close_session(session, request.cookies.get(SESSION_COOKIE, ""))
    request.app.state.gate.forget()
    response = _redirect(f"/login?{urlencode({'next': '/'})}")
    sessions.clear_session_cookie(response)
    return response


def _redirect(path: str) -> Response:
    return Response(status_code=303, headers={"Location": path})
