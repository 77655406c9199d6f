"""Models get a name: fetched from the hub by a job, or taken as they lie below the models root."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lco.hub_config import ImportConfig
from lco.manifest import MANIFEST, file_sha256
from store import holders
from store.artifacts import model_directory
from store.database import database_time
from store.deletion import mark_deleted
from store.errors import Conflict, Invalid
from store.ids import encode_id
from store.models.record import Checkpoint
from store.models.registry import Model
from store.repositories.models import Models
from store.settings import Settings
from store.specs import ImportSpec
from store.submission import submit_job
from store.tombstones import bury


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """What lies in a model's directory."""

    files: dict[str, dict[str, Any]]
    """SHA-256 and size by name."""
    sha256: str
    """Of all of it."""
    size_bytes: int


def hash_local(settings: Settings, name: str) -> LocalFiles:
    """Reads a directory below the models root; where it has a manifest, that is believed, else every byte is read.

    Raises:
        Invalid: there is no such directory, or it holds no weights as safetensors.
    """
    try:
        place = model_directory(settings, name)
        if not (place / "config.json").is_file() or not any(place.glob("*.safetensors")):
            raise ValueError("it is no model: config.json and safetensors are missing")
        manifest = place / MANIFEST
        if manifest.is_file():
            files = json.loads(manifest.read_bytes())["files"]
        else:
            paths = sorted(path for path in place.rglob("*") if path.is_file() and not path.is_symlink())
            files = {
                path.relative_to(place).as_posix(): {"sha256": file_sha256(path), "size_bytes": path.stat().st_size}
                for path in paths
            }
        size_bytes = sum(int(entry["size_bytes"]) for entry in files.values())
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise Invalid("/source/path", str(error) or type(error).__name__) from error
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return LocalFiles(files, digest, size_bytes)


def register_local(session: Session, name: str, found: LocalFiles) -> Model:
    """A model whose files stay where they are, below the models root; its checkpoint is there at once.

    Raises:
        Conflict: the name is taken.
    """
    moment = database_time(session)
    model = _named(session, Model(name=name, origin="local", files=found.files, created_at=moment))
    checkpoint = Checkpoint(
        model_id=model.id,
        attempt=0,
        kind="model",
        step=0,
        path=name,
        manifest_sha256=found.sha256,
        size_bytes=found.size_bytes,
        created_at=moment,
    )
    session.add(checkpoint)
    session.flush()
    return model


def register_hub(session: Session, settings: Settings, name: str, config: ImportConfig) -> Model:
    """A model that a job fetches; jobs may name it already, and wait for that one.

    Raises:
        Conflict: the name is taken.
        Invalid: a directory below the models root has it.
    """
    if (settings.models / name).exists():
        raise Invalid("/name", "a directory below the models root has this name: register that, or take another name")
    job = submit_job(session, ImportSpec(kind="import", name="import", method=name[:64], config=config), settings)
    row = Model(
        name=name,
        origin="hub",
        hub_id=config.hub_id,
        revision=config.revision,
        job_id=job.id,
        created_at=database_time(session),
    )
    return _named(session, row)


def _named(session: Session, row: Model) -> Model:
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        raise Conflict("taken", "a model of this name is registered already: remove it first") from None
    return row


def remove_model(session: Session, model_id: UUID, reason: str) -> None:
    """Forgets a name. Fetched files go; those below the models root are their operator's, and stay.

    Raises:
        NotFound: there is none.
        Conflict: it is being fetched, or something holds its weights.
    """
    model = Models(session).get(model_id)
    found = Models(session).states([model])[model.id]
    if found.state == "fetching":
        assert model.job_id is not None
        job = encode_id("job", model.job_id)
        raise Conflict("invalid_state", f"it is being fetched: cancel {job} first", found.state)
    size = 0
    if (row := found.checkpoint) is not None:
        session.refresh(row, with_for_update=True)
        row.model_id, size = None, row.size_bytes
        session.flush()
        if reasons := holders.of_checkpoints(session, [row]).get(row.id):
            raise Conflict("held", f"it cannot be removed: {holders.told(reasons)}")
        mark_deleted(session, row, reason)
    bury(session, "model", [(model.id, model.name, size)], reason)
    session.execute(delete(Model).where(Model.id == model.id))
