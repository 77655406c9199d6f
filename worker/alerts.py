"""Sends what the outbox holds: webhooks and mails, on threads of their own, outside any transaction."""

import json
import logging
import threading
import time
from collections import Counter
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from store.database import Database
from store.deliveries import Answer, Due, claim_due, is_any_due, record
from store.ids import encode_id
from store.settings import Settings
from worker.mail import make_mail, send
from worker.outbound import post, signed_headers

LOOK_SECONDS = 1.0
"""Time between two looks at the outbox."""
_MAX_THREADS = 8
_MAX_PER_ENDPOINT = 2
_STOP_SECONDS = 3.0

logger = logging.getLogger(__name__)


class Alerts:
    """The senders of one process; any number of processes may have some."""

    def __init__(self, settings: Settings, database: Database) -> None:
        """Nothing is sent yet."""
        self._settings, self._database = settings, database
        self._busy: Counter[UUID] = Counter()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._is_stopping = False

    def tick(self) -> None:
        """Starts a thread for each delivery that is due, as far as there are free ones, and waits for none.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot be asked.
        """
        while not self._is_stopping and (due := self._claim()) is not None:
            threading.Thread(target=self._deliver, args=(due,), name="delivery", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Waits until every try at hand has ended; whether it did."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._busy.total(), seconds)

    def stop(self) -> None:
        """Begins nothing more. A try that goes on for longer is lost, and made again by another process."""
        self._is_stopping = True
        self.wait(_STOP_SECONDS)

    def _claim(self) -> Due | None:
        with self._lock:
            if self._busy.total() >= _MAX_THREADS:
                return None
            full = [endpoint for endpoint, count in self._busy.items() if count >= _MAX_PER_ENDPOINT]
        with self._database.read() as session:
            if not is_any_due(session, full):
                return None
        with self._database.write() as session:
            due = claim_due(session, full)
        if due is not None:
            with self._lock:
                self._busy[due.endpoint_id] += 1
        return due

    def _deliver(self, due: Due) -> None:
        name = encode_id("dlv", due.delivery_id)
        try:
            answer = self._try(due)
            with self._database.write() as session:
                record(session, due, answer)
            if answer.error:
                logger.info("%s: try %d failed: %s", name, due.n, answer.error)
        except SQLAlchemyError as error:
            logger.warning("%s: try %d cannot be recorded, and is made again: %s", name, due.n, error)
        except Exception:
            logger.exception("%s: try %d", name, due.n)
        finally:
            with self._idle:
                self._busy[due.endpoint_id] -= 1
                self._busy += Counter()  # drops zeros
                self._idle.notify_all()

    def _try(self, due: Due) -> Answer:
        if due.channel["kind"] == "email":
            if not self._settings.smtp_url:
                return Answer(error="LCO_SMTP_URL is not set where the worker runs")
            return send(self._settings, make_mail(self._settings, due.channel["to"], due.message_id, due.payload))
        body = json.dumps(due.payload, separators=(",", ":"), ensure_ascii=False).encode()
        headers = signed_headers(due.message_id, int(time.time()), body, due.secrets)
        return post(due.channel["url"], headers, body, self._settings.webhook_origin_set)
