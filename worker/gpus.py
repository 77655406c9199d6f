"""GPUs of this host, handed out to one attempt at a time across all supervising processes, by file locks.

The run's processes inherit the locks: a GPU stays taken exactly as long as its supervisor or anything of the attempt's
tree lives.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class Gpus:
    """The GPU indices that the workers of one data directory share."""

    def __init__(self, directory: Path, indices: Sequence[int]) -> None:
        """Nothing is locked yet.

        Args:
            directory: holds one lock file per GPU; made when there are GPUs.
        """
        self._directory = directory
        self.indices = tuple(indices)
        """Those this worker may hand out."""
        if self.indices:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextmanager
    def offer(self) -> "Iterator[Offer]":
        """The free GPUs. Until the block ends no other process takes any; those not kept are free again then."""
        offer = Offer({})
        if not self.indices:
            yield offer
            return
        turn = self._lock("claim", fcntl.LOCK_EX)
        try:
            for index in self.indices:
                if (descriptor := self._lock(f"gpu-{index}", fcntl.LOCK_EX | fcntl.LOCK_NB)) is not None:
                    offer.descriptors[index] = descriptor
            yield offer
        finally:
            for descriptor in (*offer.descriptors.values(), turn):
                if descriptor is not None:
                    os.close(descriptor)

    def _lock(self, name: str, operation: int) -> int | None:
        descriptor = os.open(self._directory / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, operation)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor


class Offer:
    """Free GPUs, by index, with the descriptors of their locks."""

    def __init__(self, descriptors: dict[int, int]) -> None:
        """The descriptors are closed, and the GPUs free, when the offer ends."""
        self.descriptors = descriptors

    @property
    def indices(self) -> list[int]:
        """What may be taken."""
        return sorted(self.descriptors)

    def keep(self, indices: Sequence[int]) -> "Hold":
        """Takes GPUs out of the offer."""
        return Hold({index: self.descriptors.pop(index) for index in indices})


class Hold:
    """GPUs that one attempt uses."""

    def __init__(self, descriptors: dict[int, int]) -> None:
        """The locks' descriptors, by index."""
        self._descriptors = descriptors

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What the run's processes inherit."""
        return tuple(self._descriptors.values())

    def release(self) -> None:
        """Gives the supervisor's share up."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])
