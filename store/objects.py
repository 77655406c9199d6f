"""An object store behind the artifact root: what is published is pushed there, what is missing here is fetched.

Without one (`LCO_ARTIFACT_STORE` empty) every machine sees the same artifact root, and nothing here does anything. With
one, the artifact root of a machine is its own working space. A directory is pushed file by file, its manifest last: one
without a manifest does not exist. A fetched directory appears by a rename, after each of its files was checked.
"""

import hashlib
import json
import os
import secrets
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from lco.manifest import MANIFEST, file_sha256, read_manifest, step_order, sync_directory
from store.settings import Settings

CHECKPOINTS = "checkpoints"
DATA = "data"
"""Below this lie uploaded data sets, by their paths below the data root."""


class StoreUnavailable(OSError):
    """The object store could not be reached or refused: the same call may succeed later."""


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """Directories below one URL, named as below the artifact root."""

    file_system: Any
    """An fsspec file system."""
    base: str
    """Path of the URL, without a slash at its end."""

    def push(self, root: Path, directory: Path) -> None:
        """Copies a directory that has a manifest; nothing where it is there already.

        Raises:
            ValueError: the directory has no manifest, or is damaged.
            StoreUnavailable: it could not be copied whole.
        """
        manifest = read_manifest(directory)
        relative = directory.relative_to(root).as_posix()
        if self._manifest_sha256(relative) == manifest.sha256:
            return
        for name in _file_names(directory):
            self.put(directory / name, f"{relative}/{name}")
        self.put(directory / MANIFEST, f"{relative}/{MANIFEST}")

    def fetch(self, root: Path, directory: Path) -> bool:
        """Brings a directory here; False where the store has none. One that is here already is left alone.

        Raises:
            ValueError: what the store has is damaged.
            StoreUnavailable: it could not be copied whole.
        """
        if (directory / MANIFEST).is_file():
            return True
        relative = directory.relative_to(root).as_posix()
        if (content := self._manifest(relative)) is None:
            return False
        temporary = directory.parent / f".{directory.name}.fetching-{secrets.token_hex(4)}"
        try:
            for name, entry in json.loads(content)["files"].items():
                place = temporary.joinpath(*_inside(name).parts)
                self.get(f"{relative}/{name}", place)
                if file_sha256(place) != entry["sha256"]:
                    raise ValueError(f"{relative}/{name} in the object store differs from its manifest")
            temporary.mkdir(parents=True, exist_ok=True)
            (temporary / MANIFEST).write_bytes(content)
            _merge(temporary, directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return True

    def has(self, relative: str) -> bool:
        """Whether the store has the directory, whole."""
        return self._manifest(relative) is not None

    def missing_files(self, relative: str) -> list[str]:
        """Files that the directory's manifest names and the store lacks or has with another size; the manifest itself
        where there is none.
        """
        content = self._manifest(relative)
        if content is None:
            return [MANIFEST]
        files = json.loads(content)["files"]
        return [name for name, entry in files.items() if self.size_bytes(f"{relative}/{name}") != entry["size_bytes"]]

    def files(self, relative: str) -> dict[str, dict[str, Any]]:
        """SHA-256 and size of each file of a directory, as its manifest states them; empty where there is none."""
        content = self._manifest(relative)
        found: dict[str, dict[str, Any]] = {} if content is None else json.loads(content)["files"]
        return found

    def newest_checkpoint(self, relative: str) -> str | None:
        """Path of the newest whole `checkpoints/step-*` of an attempt's directory."""
        folder = f"{relative}/{CHECKPOINTS}"
        names = [Path(name).name for name in self._list(folder)]
        steps = [name for name in names if name.startswith("step-")]
        for name in sorted(steps, key=lambda name: step_order(Path(name)), reverse=True):
            if self.has(f"{folder}/{name}"):
                return f"{folder}/{name}"
        return None

    def remove(self, relative: str) -> None:
        """Removes a directory or a file, the manifest first; nothing where it is not there."""
        with _Outage(f"{relative} cannot be removed"):
            manifest = self._path(f"{relative}/{MANIFEST}")
            if self.file_system.exists(manifest):
                self.file_system.rm_file(manifest)
            if self.file_system.exists(self._path(relative)):
                self.file_system.rm(self._path(relative), recursive=True)

    def put(self, place: Path, relative: str) -> None:
        """Copies one file to the store."""
        with _Outage(f"{relative} cannot be stored"):
            target = self._path(relative)
            self.file_system.makedirs(target.rpartition("/")[0], exist_ok=True)
            self.file_system.put_file(str(place), target)

    def get(self, relative: str, place: Path) -> None:
        """Copies one file from the store, durably.

        Raises:
            FileNotFoundError: there is none.
        """
        place.parent.mkdir(parents=True, exist_ok=True)
        with _Outage(f"{relative} cannot be fetched"):
            self.file_system.get_file(self._path(relative), str(place))
        with place.open("rb") as stream:
            os.fsync(stream.fileno())

    def _path(self, relative: str) -> str:
        return f"{self.base}/{_inside(relative).as_posix()}"

    def _manifest(self, relative: str) -> bytes | None:
        with _Outage(f"{relative} cannot be looked at"):
            try:
                content: bytes = self.file_system.cat_file(self._path(f"{relative}/{MANIFEST}"))
            except FileNotFoundError:
                return None
        return content

    def _manifest_sha256(self, relative: str) -> str | None:
        content = self._manifest(relative)
        return None if content is None else hashlib.sha256(content).hexdigest()

    def size_bytes(self, relative: str) -> int | None:
        """Of a file; None where there is none."""
        with _Outage(f"{relative} cannot be looked at"):
            try:
                return int(self.file_system.info(self._path(relative))["size"])
            except FileNotFoundError:
                return None

    def _list(self, relative: str) -> list[str]:
        with _Outage(f"{relative} cannot be looked at"):
            try:
                return [str(name) for name in self.file_system.ls(self._path(relative), detail=False)]
            except FileNotFoundError:
                return []


class _Outage:
    """Turns what a file system raises, apart from a missing file, into `StoreUnavailable`."""

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # Every fsspec implementation has errors of its own; those that are not ours mean that the store did not do it.
        if isinstance(error, Exception) and not isinstance(error, FileNotFoundError | ValueError | StoreUnavailable):
            raise StoreUnavailable(f"the object store: {self._doing}: {type(error).__name__}: {error}") from error


def object_store(settings: Settings) -> ObjectStore | None:
    """The configured object store; None where machines share the artifact root.

    Raises:
        ValueError: the URL's scheme needs a package that is not installed.
    """
    return _connected(settings.artifact_store, os.getpid()) if settings.artifact_store else None


@lru_cache(maxsize=4)
def _connected(url: str, pid: int) -> ObjectStore:
    """A connection per process: those of a parent are of no use after a fork."""
    import fsspec

    try:
        file_system, path = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    except ImportError as error:
        raise ValueError(f"LCO_ARTIFACT_STORE={url}: install lco-platform[s3] ({error})") from error
    return ObjectStore(file_system, str(path).rstrip("/"))


def is_here(settings: Settings, directory: Path) -> bool:
    """Whether a published directory can be read here, after it was fetched where it must be.

    Raises:
        StoreUnavailable: the object store does not answer.
        ValueError: what it has is damaged.
    """
    if (directory / MANIFEST).is_file():
        return True
    store = object_store(settings)
    return store is not None and store.fetch(settings.artifacts, directory)


def is_published(settings: Settings, directory: Path) -> bool:
    """Whether a published directory is here or in the object store, without fetching it."""
    if (directory / MANIFEST).is_file():
        return True
    store = object_store(settings)
    return store is not None and store.has(directory.relative_to(settings.artifacts).as_posix())


def _inside(relative: str) -> PurePosixPath:
    path = PurePosixPath(relative)
    if path.is_absolute() or not path.parts or ".." in path.parts:
        raise ValueError(f"{relative[:200]!r} is no path below a root")
    return path


def _file_names(directory: Path) -> list[str]:
    return list(json.loads((directory / MANIFEST).read_bytes())["files"])


def _merge(temporary: Path, directory: Path) -> None:
    """Puts fetched files in their place: at once where nothing is there, else one by one and the manifest last."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.rename(directory)
    except OSError:  # the attempt's directory exists: it holds other files, or another process was faster
        paths = sorted(path for path in temporary.rglob("*") if path.is_file())
        for path in sorted(paths, key=lambda path: path.name == MANIFEST and path.parent == temporary):
            target = directory / path.relative_to(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    sync_directory(directory.parent)
