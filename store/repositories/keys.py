"""Who may call: API keys, browser sessions and login links; and the replies kept for idempotent retries.

Secrets never come here: callers hash them.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from store.confinement import project_of
from store.database import database_time
from store.errors import NotFound
from store.ids import encode_id, new_id
from store.models.access import ApiKey, IdempotencyKey
from store.models.access import Session as BrowserSession
from store.repositories.paging import Order, Page, keyset_page
from store.upserts import insert_into

_TOUCH_EVERY = timedelta(minutes=1)


class Keys:
    """Queries of API keys, browser sessions and idempotency keys."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(
        self,
        *,
        name: str,
        secret_sha256: str,
        scope: str,
        expires_at: datetime | None = None,
        key_id: UUID | None = None,
        project_id: UUID | None = None,
    ) -> ApiKey:
        """Adds an API key, of the session's project unless told."""
        key = ApiKey(
            id=key_id or new_id(),
            project_id=project_id or project_of(self._session),
            name=name,
            secret_sha256=secret_sha256,
            scope=scope,
            created_at=database_time(self._session),
            expires_at=expires_at,
        )
        self._session.add(key)
        self._session.flush()
        return key

    def get(self, key_id: UUID) -> ApiKey:
        """One key, whether or not it is valid.

        Raises:
            NotFound: there is none.
        """
        key = self._session.get(ApiKey, key_id)
        if key is None:
            raise NotFound("API key", encode_id("key", key_id))
        return key

    def valid(self, key_id: UUID) -> ApiKey | None:
        """The key, unless it is absent, revoked or expired."""
        moment = database_time(self._session)
        is_valid = (ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > moment))
        return self._session.scalar(select(ApiKey).where(ApiKey.id == key_id, *is_valid))

    def exist(self) -> bool:
        """Whether there is any key, valid or not."""
        return self._session.execute(select(func.count()).select_from(ApiKey)).scalar_one() > 0

    def revoke(self, key_id: UUID) -> ApiKey:
        """Ends a key and every browser session on it; repeating changes nothing.

        Raises:
            NotFound: there is none.
        """
        key = self.get(key_id)
        if key.revoked_at is None:
            key.revoked_at = database_time(self._session)
        self._session.execute(delete(BrowserSession).where(BrowserSession.api_key_id == key_id))
        self._session.flush()
        return key

    def touch(self, key_id: UUID) -> None:
        """Notes that a key was used, at most once a minute."""
        moment = database_time(self._session)
        is_due = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < moment - _TOUCH_EVERY)
        self._session.execute(update(ApiKey).where(ApiKey.id == key_id, is_due).values(last_used_at=moment))

    def page(
        self,
        limit: int = 20,
        after: UUID | None = None,
        before: UUID | None = None,
        order: Order = "desc",
        *,
        project_id: UUID | None = None,
    ) -> Page[ApiKey]:
        """Keys by their creation."""
        query = select(ApiKey)
        if project_id is not None:
            query = query.where(ApiKey.project_id == project_id)
        return keyset_page(self._session, query, ApiKey.id, limit=limit, after=after, before=before, order=order)

    def open_session(
        self, *, token_sha256: str, api_key_id: UUID, lifetime: timedelta, is_link: bool = False
    ) -> BrowserSession:
        """Adds a browser session, or a one-time login link, for a key."""
        moment = database_time(self._session)
        opened = BrowserSession(
            token_sha256=token_sha256,
            api_key_id=api_key_id,
            is_link=is_link,
            created_at=moment,
            expires_at=moment + lifetime,
        )
        self._session.add(opened)
        self._session.flush()
        return opened

    def session_key(self, token_sha256: str) -> ApiKey | None:
        """The valid key that a browser session stands for; None where the session has ended. Links are no sessions."""
        query = select(BrowserSession.api_key_id).where(
            BrowserSession.token_sha256 == token_sha256,
            BrowserSession.is_link.is_(False),
            BrowserSession.expires_at > database_time(self._session),
        )
        key_id = self._session.scalar(query)
        return None if key_id is None else self.valid(key_id)

    def use_link(self, token_sha256: str) -> ApiKey | None:
        """The valid key that a login link stands for; the link is gone afterwards."""
        moment = database_time(self._session)
        use = (
            delete(BrowserSession)
            .where(BrowserSession.token_sha256 == token_sha256, BrowserSession.is_link.is_(True))
            .returning(BrowserSession.api_key_id, BrowserSession.expires_at)
        )
        row = self._session.execute(use).one_or_none()
        return None if row is None or row.expires_at <= moment else self.valid(row.api_key_id)

    def close_session(self, token_sha256: str) -> None:
        """Ends a browser session."""
        self._session.execute(delete(BrowserSession).where(BrowserSession.token_sha256 == token_sha256))

    def reserve(self, *, api_key_id: UUID, key: str, request_sha256: str) -> IdempotencyKey | None:
        """Takes an idempotency key for this transaction's request; None where it was free.

        Else what is kept under it: the caller compares `request_sha256` and replays the reply. On PostgreSQL this waits
        for a concurrent transaction that holds the same key, on SQLite writers take turns anyway: nobody sees an
        unfinished one.
        """
        values = {
            "api_key_id": api_key_id,
            "key": key,
            "request_sha256": request_sha256,
            "status_code": 0,
            "body": {},
            "created_at": database_time(self._session),
        }
        take = (
            insert_into(self._session, IdempotencyKey)
            .values(**values)
            .on_conflict_do_nothing()
            .returning(IdempotencyKey.key)
        )
        if self._session.execute(take).scalar_one_or_none() is not None:
            return None
        return self._session.get_one(IdempotencyKey, (api_key_id, key), populate_existing=True)

    def keep_reply(self, *, api_key_id: UUID, key: str, status_code: int, body: dict[str, Any]) -> None:
        """Keeps the reply of a reserved key, in the same transaction."""
        self._session.execute(
            update(IdempotencyKey)
            .where(IdempotencyKey.api_key_id == api_key_id, IdempotencyKey.key == key)
            .values(status_code=status_code, body=body)
        )

    def prune(self, keep_replies: timedelta = timedelta(hours=48)) -> None:
        """Removes ended sessions and old replies."""
        moment = database_time(self._session)
        self._session.execute(delete(BrowserSession).where(BrowserSession.expires_at <= moment))
        self._session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < moment - keep_replies))
