"""The disk of the artifacts: how full it is, and when nothing new is taken."""

import shutil
from dataclasses import dataclass

from store.errors import Full
from store.settings import Settings


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system that holds the artifacts."""

    total_bytes: int
    free_bytes: int
    """What the platform's user may still write."""
    used_percent: float
    """Of what that user may write in all, as `df` shows it."""
    is_low: bool
    """`LCO_DISK_WARNING_PERCENT` is reached."""
    is_full: bool
    """`LCO_DISK_FULL_PERCENT` is reached: nothing new is taken."""


def disk_of(settings: Settings) -> Disk:
    """The disk of the artifact root, or of its nearest parent that exists."""
    place = settings.artifacts
    while not place.exists() and place != place.parent:
        place = place.parent
    usage = shutil.disk_usage(place)
    writable = usage.used + usage.free
    percent = 100 * usage.used / writable if writable else 100.0
    return Disk(
        total_bytes=usage.total,
        free_bytes=usage.free,
        used_percent=round(percent, 1),
        is_low=percent >= settings.disk_warning_percent,
        is_full=percent >= settings.disk_full_percent,
    )


def refuse_when_full(settings: Settings) -> None:
    """Refuses new work on a full disk; what frees space is never refused.

    Raises:
        Full: says how full it is.
    """
    disk = disk_of(settings)
    if disk.is_full:
        raise Full(
            f"the disk of the artifacts is {disk.used_percent:g} % full, and nothing new is taken from "
            f"{settings.disk_full_percent:g} %; delete something, or see `lco gc --dry-run`"
        )
