"""An export on the way to its directory: written beside it, continued where it was cut off, checked, then unpacked.

Only regular files below the archive's one folder are taken; each must have the hash that `SHA256SUMS` states.
"""

import contextlib
import hashlib
import json
import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from api.transport import ApiFailure

SUMS = "SHA256SUMS"
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Partial:
    """What is there of a download."""

    directory: Path

    @property
    def archive(self) -> Path:
        """The bytes so far."""
        return self.directory.with_name(f".{self.directory.name}.tar.part")

    @property
    def note(self) -> Path:
        """Of which archive they are."""
        return self.directory.with_name(f".{self.directory.name}.tar.etag")

    def begun(self, what: str) -> tuple[int, str]:
        """How many bytes of which version there are, of this very export; 0 and nothing where there is none."""
        try:
            document = json.loads(self.note.read_text())
            if document["what"] == what:
                return self.archive.stat().st_size, str(document["etag"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return 0, ""

    def receive(self, what: str, etag: str, blocks: Iterable[bytes], *, is_rest: bool) -> None:
        """Writes what comes: the rest of what is there, or all of it."""
        if not is_rest:
            self.archive.unlink(missing_ok=True)
            self.note.write_text(json.dumps({"what": what, "etag": etag}))
        with self.archive.open("ab") as stream:
            for block in blocks:
                stream.write(block)

    def unpack(self) -> list[str]:
        """Checks the archive and makes the directory of it, whole or not at all; the names of its files.

        Raises:
            ApiFailure: the archive is damaged; it is forgotten, so that the next try begins anew.
        """
        temporary = self.directory.with_name(f".{self.directory.name}.unpacking")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            names = _extracted(self.archive, temporary)
            if self.directory.exists():
                self.directory.rmdir()  # an empty one
            temporary.rename(self.directory)
        except (tarfile.TarError, ValueError, OSError, KeyError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            self.forget()
            raise ApiFailure(0, "damaged", f"the export is damaged: {error}; try again") from error
        self.forget()
        return names

    def forget(self) -> None:
        """Removes the archive."""
        for path in (self.archive, self.note):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def _extracted(archive: Path, target: Path) -> list[str]:
    hashes: dict[str, str] = {}
    sums = ""
    with tarfile.open(archive, "r:") as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts[1:]
            if not member.isreg() or not parts or any(part in ("..", "") or part.startswith("/") for part in parts):
                raise ValueError(f"{member.name[:100]!r} is no file of an export")
            source = tar.extractfile(member)
            assert source is not None
            name = "/".join(parts)
            place = target.joinpath(*parts)
            place.parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256()
            with source, place.open("xb") as stream:
                while block := source.read(_BLOCK):
                    digest.update(block)
                    stream.write(block)
            if name == SUMS:
                sums = place.read_text()
            else:
                hashes[name] = digest.hexdigest()
    stated: dict[str, str] = {}
    for line in sums.splitlines():
        sha256, _, name = line.partition("  ")
        stated[name] = sha256
    if stated != hashes:
        wrong = sorted(name for name in stated.keys() | hashes.keys() if stated.get(name) != hashes.get(name))
        raise ValueError(f"{wrong[0] if wrong else SUMS} differs from what {SUMS} states")
    return sorted(hashes)
