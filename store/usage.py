"""What takes how much room: by kind, from rows alone; and the database's own size."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from store.models.dataset import Dataset
from store.models.record import Checkpoint, LogChunk
from store.models.run import Run


@dataclass(frozen=True, slots=True)
class Used:
    """Room by kind, in bytes."""

    states: int = 0
    models: int = 0
    datasets: int = 0
    logs: int = 0
    num_states: int = 0
    num_models: int = 0
    num_datasets: int = 0


def used_by(session: Session) -> Used:
    """Room that checkpoints, data sets and logs take, of the project that the session is confined to."""
    mine = (
        select(Checkpoint.kind, func.count(), func.coalesce(func.sum(Checkpoint.size_bytes), 0))
        .where(Checkpoint.deleted_at.is_(None))
        .group_by(Checkpoint.kind)
    )
    kinds = {kind: (count, int(size)) for kind, count, size in session.execute(mine)}
    # Versions of equal rows share one file.
    files = select(Dataset.path, func.max(Dataset.size_bytes).label("size")).group_by(Dataset.path).subquery()
    datasets = session.execute(select(func.count(), func.coalesce(func.sum(files.c.size), 0))).one()
    logs = session.scalar(
        select(func.coalesce(func.sum(func.length(LogChunk.text)), 0)).join(Run, Run.id == LogChunk.run_id)
    )
    none = (0, 0)
    return Used(
        states=kinds.get("state", none)[1],
        models=kinds.get("model", none)[1],
        datasets=int(datasets[1]),
        logs=int(logs or 0),
        num_states=kinds.get("state", none)[0],
        num_models=kinds.get("model", none)[0],
        num_datasets=datasets[0],
    )


def size_of_database(session: Session) -> int:
    """Bytes of the whole database."""
    if session.get_bind().dialect.name == "postgresql":
        return int(session.scalar(select(func.pg_database_size(func.current_database()))) or 0)
    pages: Any = session.scalar(text("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"))
    return int(pages or 0)
