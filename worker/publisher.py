"""What an attempt leaves for other machines, pushed to the object store while it runs and before it counts as done.

Checkpoints are pushed by a thread: training does not wait, and of checkpoints that pile up only the newest is pushed.
Outputs are pushed before the rows that name them: a row without its files would be a run lost.
"""

import logging
import threading
import time
from collections import deque
from pathlib import Path

from store.objects import ObjectStore, StoreUnavailable

KEPT_CHECKPOINTS = 2
"""Pushed checkpoints of an attempt that are left in the store; the older of two serves where the newer is damaged."""
_FIRST_DELAY_SECONDS = 0.5
_MAX_DELAY_SECONDS = 30.0

logger = logging.getLogger(__name__)


class Publisher:
    """Pushes one attempt's directories; does nothing without an object store."""

    def __init__(self, store: ObjectStore | None, root: Path) -> None:
        """Nothing is pushed yet.

        Args:
            root: the artifact root, below which the directories lie.
        """
        self._store, self._root = store, root
        self._waiting: Path | None = None
        self._pushed: deque[Path] = deque()
        self._is_closing = False
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None

    def offer(self, checkpoint: Path) -> None:
        """Has a checkpoint pushed soon, unless a newer one comes before its turn."""
        if self._store is None:
            return
        with self._change:
            self._waiting = checkpoint
            self._change.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)
                self._thread.start()

    def close(self, within_seconds: float) -> None:
        """Waits until the newest checkpoint is pushed, though not longer than that."""
        with self._change:
            self._is_closing = True
            self._change.notify()
        if self._thread is not None:
            self._thread.join(within_seconds)

    def publish(self, directory: Path) -> None:
        """Pushes a finished directory.

        Raises:
            StoreUnavailable: the store did not take it.
            ValueError: it is damaged.
        """
        if self._store is not None:
            self._store.push(self._root, directory)

    def _work(self) -> None:
        delay = _FIRST_DELAY_SECONDS
        while (checkpoint := self._next()) is not None:
            try:
                self._push(checkpoint)
                delay = _FIRST_DELAY_SECONDS
            except StoreUnavailable as error:
                logger.warning("%s is not pushed yet: %s", checkpoint.name, error)
                with self._change:
                    if self._is_closing:
                        return
                    self._waiting = self._waiting or checkpoint
                time.sleep(delay)
                delay = min(2 * delay, _MAX_DELAY_SECONDS)
            except (ValueError, FileNotFoundError):
                continue  # the trainer removed it meanwhile: a newer one exists

    def _next(self) -> Path | None:
        """The checkpoint whose turn it is; None at the end."""
        with self._change:
            while self._waiting is None and not self._is_closing:
                self._change.wait()
            checkpoint, self._waiting = self._waiting, None
            return checkpoint

    def _push(self, checkpoint: Path) -> None:
        assert self._store is not None
        self._store.push(self._root, checkpoint)
        if checkpoint not in self._pushed:
            self._pushed.append(checkpoint)
        while len(self._pushed) > KEPT_CHECKPOINTS:
            self._store.remove(self._pushed[0].relative_to(self._root).as_posix())
            self._pushed.popleft()
