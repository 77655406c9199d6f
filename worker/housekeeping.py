"""What keeps the disk: garbage is collected hourly, by whichever process comes first, and a full disk is told."""

import logging
import socket

from sqlalchemy import select
from sqlalchemy.orm import Session

from store import chores
from store.database import Database
from store.disk import Disk, disk_of
from store.gc import Collector
from store.models.project import Project
from store.notifications import publish
from store.settings import Settings

COLLECT_SECONDS = 3600.0
"""Time between two collections of a platform."""
LOOK_SECONDS = 60.0
"""Time between two looks of a process."""

logger = logging.getLogger(__name__)


class Housekeeper:
    """The share of one process."""

    def __init__(self, settings: Settings, database: Database) -> None:
        """Nothing is looked at yet."""
        self._settings, self._database = settings, database

    def tick(self) -> None:
        """Looks at the disk, and collects where it is time. Safe in any number of processes."""
        with self._database.write() as session:
            tell_disk(session, disk_of(self._settings))
            # With an object store each machine has files of its own.
            name = f"gc {socket.gethostname()}"[:64] if self._settings.artifact_store else "gc"
            is_time = chores.begin(session, name, COLLECT_SECONDS)
        if not is_time:
            return
        report = Collector(self._settings, self._database).collect()
        if report.items:
            logger.info("collected %d things, %d bytes freed", len(report.items), report.freed_bytes)


def tell_disk(session: Session, disk: Disk) -> bool:
    """Notes how full the disk is; true once each time that it becomes low, and told then."""
    now = {"is_low": disk.is_low, "used_percent": disk.used_percent, "free_bytes": disk.free_bytes}
    before = chores.note(session, "disk", now)
    if not disk.is_low or before.get("is_low"):
        return False
    logger.warning("the disk of the artifacts is %g %% full, %d bytes are free", disk.used_percent, disk.free_bytes)
    told = {"used_percent": disk.used_percent, "free_bytes": disk.free_bytes, "is_full": disk.is_full}
    for project_id in session.scalars(select(Project.id).where(Project.archived_at.is_(None)).order_by(Project.id)):
        publish(session, "disk.low", "disk", told, project_id)
    return True
