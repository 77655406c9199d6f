"""Browser sessions: a cookie that stands for an API key, and one-time links that give one."""

import secrets
from datetime import timedelta
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import Response
from sqlalchemy.orm import Session as OrmSession

from api.auth import SESSION_COOKIE, hash_secret, verify_key
from store.models.access import ApiKey
from store.repositories.keys import Keys

SESSION_SECONDS = 7 * 24 * 3600
LINK_SECONDS = 3600
_PREFIX = "lco_se_"


def open_session(session: OrmSession, key_text: str) -> tuple[str, ApiKey] | None:
    """A new session's token for whoever presents a key, and the key; None when it is not active."""
    key = verify_key(session, key_text)
    return None if key is None else (_add(session, key.id, SESSION_SECONDS, is_link=False), key)


def create_link(session: OrmSession, key_id: UUID) -> str:
    """The token of a link that opens one session for a key, once, within an hour."""
    return _add(session, key_id, LINK_SECONDS, is_link=True)


def redeem_link(session: OrmSession, token: str) -> tuple[str, ApiKey] | None:
    """A new session's token for a link's, and its key; None when the link was used, is too old, or never was."""
    key = Keys(session).use_link(hash_secret(token))
    return None if key is None else (_add(session, key.id, SESSION_SECONDS, is_link=False), key)


def close_session(session: OrmSession, token: str) -> None:
    """Ends the session of a cookie."""
    Keys(session).close_session(hash_secret(token))


def _add(session: OrmSession, key_id: UUID, seconds: int, *, is_link: bool) -> str:
    token = _PREFIX + secrets.token_urlsafe(32)
    Keys(session).open_session(
        token_sha256=hash_secret(token), api_key_id=key_id, lifetime=timedelta(seconds=seconds), is_link=is_link
    )
    return token


def set_session_cookie(response: Response, token: str, *, secure: bool) -> None:
    """Gives the browser its session: out of reach for scripts and for other sites' requests; over HTTPS alone where
    `secure`.
    """
    response.set_cookie(
        SESSION_COOKIE, token, max_age=SESSION_SECONDS, path="/", httponly=True, samesite="strict", secure=secure
    )


def clear_session_cookie(response: Response) -> None:
    """Takes the session from the browser."""
    response.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="strict")


def local_path(text: str) -> str:
    """A path of this server to go back to after a login; `/` for anything that leads elsewhere."""
    parts = urlsplit(text)
    is_local = text.startswith("/") and not text.startswith("//") and "\\" not in text and text.isprintable()
    return text if is_local and not parts.scheme and not parts.netloc else "/"
