"""An export: a published model with its card and the hashes of its files, as an uncompressed tar.

Everything but the card is as the run left it, so that size and bytes are known before the first is sent: an export that
was cut off goes on anywhere.
"""

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from lco.manifest import MANIFEST, read_files
from store.artifacts import artifact_path, checkpoint_directory, relative_path, run_directory
from store.cards import UnitOf, model_card
from store.errors import Conflict, Invalid
from store.ids import encode_id
from store.models.record import Checkpoint
from store.models.registry import Model
from store.objects import object_store
from store.settings import Settings

ADAPTER = "adapter"
CARD = "README.md"
SUMS = "SHA256SUMS"
_BLOCK = 512
_CHUNK = 1 << 20
_END = bytes(2 * _BLOCK)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes of the archive: at hand, or a file's."""

    size: int
    content: bytes | Path


@dataclass(frozen=True, slots=True)
class Archive:
    """A tar that is made while it is sent."""

    pieces: tuple[_Piece, ...]
    size_bytes: int
    etag: str
    """Differs where a byte does."""

    def bytes_from(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to and without `end`.

        Raises:
            OSError: a file is shorter than it was.
        """
        position = 0
        for piece in self.pieces:
            first, last = max(start - position, 0), min(end - position, piece.size)
            position += piece.size
            if first >= last:
                continue
            if isinstance(piece.content, bytes):
                yield piece.content[first:last]
                continue
            with piece.content.open("rb") as stream:
                stream.seek(first)
                while first < last:
                    block = stream.read(min(_CHUNK, last - first))
                    if not block:
                        raise OSError(f"{piece.content.name} is shorter than it was")
                    first += len(block)
                    yield block


def archive_of(session: Session, settings: Settings, checkpoint: Checkpoint, form: str, unit_of: UnitOf) -> Archive:
    """The archive of a published model.

    Args:
        form: `merged`, the whole model with an adapter added to its weights, or `adapter`, as peft reads it.

    Raises:
        Invalid: it is a resumable state, or has no adapter.
        Conflict: its files are not those of its manifest.
    """
    if checkpoint.kind != "model":
        raise Invalid("/path/ckpt_id", "this is a resumable state, not a published model")
    try:
        directory = checkpoint_directory(settings, checkpoint)
        listed = _files(session, settings, checkpoint)
    except (ValueError, OSError, KeyError) as error:
        raise Conflict("damaged", f"its files cannot be read: {error}") from error
    inside = {name: entry for name, entry in listed.items() if name.startswith(f"{ADAPTER}/") == (form == "adapter")}
    if form == "adapter":
        inside = {name.removeprefix(f"{ADAPTER}/"): entry for name, entry in inside.items()}
        if not inside:
            raise Invalid("/query/form", "this model was not trained through an adapter; take the form merged")
    base = directory / ADAPTER if form == "adapter" else directory
    members: list[tuple[str, int, bytes | Path, str]] = []
    for name, (sha256, size) in sorted(inside.items()):
        place = base / name
        if not place.is_file() or place.stat().st_size != size:
            raise Conflict("damaged", f"{name} is missing or has another size than its manifest says")
        members.append((f"ORIGINAL_{name}" if name == CARD else name, size, place, sha256))
    card = model_card(session, checkpoint, form, unit_of).encode()
    members.append((CARD, len(card), card, hashlib.sha256(card).hexdigest()))
    sums = "".join(f"{sha256}  {name}\n" for name, _, _, sha256 in members).encode()
    members.append((SUMS, len(sums), sums, ""))
    moment = int(checkpoint.created_at.timestamp())
    folder = encode_id("ckpt", checkpoint.id)
    pieces: list[_Piece] = []
    for name, size, content, _ in members:
        header = tarfile.TarInfo(f"{folder}/{name}")
        header.size, header.mtime, header.mode = size, moment, 0o644
        head = header.tobuf(tarfile.PAX_FORMAT)
        pieces += [_Piece(len(head), head), _Piece(size, content)]
        if size % _BLOCK:
            pieces.append(_Piece(_BLOCK - size % _BLOCK, bytes(_BLOCK - size % _BLOCK)))
    pieces.append(_Piece(len(_END), _END))
    etag = hashlib.sha256(form.encode() + sums).hexdigest()[:24]
    return Archive(tuple(pieces), sum(piece.size for piece in pieces), f'"{etag}"')


def files_of_model(session: Session, settings: Settings, checkpoint: Checkpoint) -> dict[str, tuple[str, int]]:
    """SHA-256 and size of each file of a checkpoint, by its path inside; empty where they cannot be read. Nothing is
    fetched for it.
    """
    try:
        return _files(session, settings, checkpoint)
    except (ValueError, OSError, KeyError):
        return {}


def _files(session: Session, settings: Settings, checkpoint: Checkpoint) -> dict[str, tuple[str, int]]:
    if checkpoint.run_id is None:
        model = None if checkpoint.model_id is None else session.get(Model, checkpoint.model_id)
        if model is None:
            raise ValueError("its registered model is gone")
        files, prefix = model.files, "."
    else:
        directory = artifact_path(settings, checkpoint.path)
        attempt = run_directory(settings, checkpoint.run_id, checkpoint.attempt)
        root = directory if checkpoint.kind == "state" else attempt
        prefix = directory.relative_to(root).as_posix()
        store = object_store(settings)
        if store is not None and not (root / MANIFEST).is_file():
            files = store.files(relative_path(settings, root))
        else:
            files = read_files(root)
    if prefix != ".":
        inside = f"{prefix}/"
        files = {name.removeprefix(inside): entry for name, entry in files.items() if name.startswith(inside)}
    return {name: (entry["sha256"], entry["size_bytes"]) for name, entry in files.items() if name != MANIFEST}
