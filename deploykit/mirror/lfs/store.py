"""The objects of Git LFS that a mirror holds, as git-lfs itself lays them out: `objects/aa/bb/OID`.

Rules:

* A file under `objects` is whole and hashes to its name: it is hashed while it is written in `incoming`, synced, and
  renamed.
* One process writes at a time: the caller holds the mirror's lock. Reading needs no lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from deploykit.errors import MirrorError
from deploykit.git.lfspointer import LfsPointer
from deploykit.system.durable import replace_file, sync_directory, sync_filesystem, write_all


class LfsStore:
    """The objects below `root`, the `lfs` directory of a mirror. Nothing has to be there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._objects = root / "objects"
        self._incoming = root / "incoming"

    def path(self, pointer: LfsPointer) -> Path | None:
        """Return the file of an object; None where it is not there, or has another size."""
        path = self._place(pointer.oid)
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return None
        return path if stat.S_ISREG(found.st_mode) and found.st_size == pointer.size else None

    def lacking(self, pointers: Iterable[LfsPointer]) -> tuple[LfsPointer, ...]:
        """Return those whose objects are not there, each once, in their order."""
        return tuple(pointer for pointer in dict.fromkeys(pointers) if self.path(pointer) is None)

    def receive(self, pointer: LfsPointer) -> IncomingLfsObject:
        """Return what takes in the content of one object. The caller holds the mirror's lock."""
        if not self._incoming.is_dir():
            self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_directory(self.root.parent)
        return IncomingLfsObject(pointer, self._incoming / pointer.oid, self._place(pointer.oid))

    def held(self) -> Iterator[tuple[str, Path, int]]:
        """Yield name, path and size of what lies in the store, each in its place."""
        for path in self._objects.glob("*/*/*"):
            if path == self._place(path.name):
                yield path.name, path, path.lstat().st_size

    def take_over(self, other: LfsStore) -> None:
        """Link what is sound in another store of the same file system into this one, but what only others may link.

        Raises:
            OSError: the disk fails.
        """
        self._objects.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._objects, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for oid, path, _ in other.held():
                if is_sound(path):
                    place = self._place(oid)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    with contextlib.suppress(PermissionError):
                        place.hardlink_to(path)
            sync_filesystem(fd)
        finally:
            os.close(fd)

    def sweep(self) -> None:
        """Remove what a killed process left. The caller holds the mirror's lock."""
        if self._incoming.is_dir():
            for left in self._incoming.iterdir():
                left.unlink(missing_ok=True)

    def forget(self) -> None:
        """Have the next fetch look at every ref anew: call it where an object is missing that should be there."""
        with contextlib.suppress(OSError):  # a reader may not be allowed to; then a fetch has to be told
            (self.root / "complete").unlink(missing_ok=True)

    def read_complete(self) -> frozenset[str]:
        """Return the object ids of refs of which every object was there. It is only memory: without it all are read."""
        try:
            return frozenset((self.root / "complete").read_text("ascii", "replace").split())
        except FileNotFoundError:
            return frozenset()

    def write_complete(self, ids: Iterable[str]) -> None:
        """Replace what `read_complete` returns; a full disk is no error here."""
        with contextlib.suppress(OSError):
            self.root.mkdir(exist_ok=True)
            replace_file(self.root / "complete", "".join(f"{oid}\n" for oid in sorted(ids)).encode())

    def _place(self, oid: str) -> Path:
        return self._objects / oid[:2] / oid[2:4] / oid


def is_sound(path: Path) -> bool:
    """Return whether an object's file is what its name says."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, "rb", buffering=0) as file:
            return stat.S_ISREG(os.fstat(fd).st_mode) and hashlib.file_digest(file, "sha256").hexdigest() == path.name
    except OSError:
        return False


class IncomingLfsObject:
    """An object on its way into the store. A context manager: leaving it before `finish` removes what came."""

    def __init__(self, pointer: LfsPointer, path: Path, place: Path) -> None:
        self._pointer = pointer
        self._path = path
        self._place = place
        self._sum = hashlib.sha256()
        self.received = 0
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)

    def __enter__(self) -> IncomingLfsObject:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)
        self._path.unlink(missing_ok=True)

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            MirrorError: they are more than the pointer says.
        """
        self.received += len(data)
        if self.received > self._pointer.size:
            raise MirrorError(f"the server sent more than the {self._pointer.size} bytes that the pointer says")
        self._sum.update(data)
        write_all(self._fd, data)

    def finish(self) -> None:
        """Move the object into the store.

        Raises:
            MirrorError: what came is not what the pointer says.
        """
        if self.received != self._pointer.size:
            raise MirrorError(f"the server sent {self.received} of {self._pointer.size} bytes")
        if self._sum.hexdigest() != self._pointer.oid:
            raise MirrorError("what the server sent does not hash to the id in the pointer")
        os.fsync(self._fd)
        new = [path for path in list(self._place.parents)[:3] if not path.exists()]
        self._place.parent.mkdir(parents=True, exist_ok=True)
        self._path.rename(self._place)
        for directory in (self._place.parent, *(path.parent for path in new)):
            sync_directory(directory)


__all__ = ["IncomingLfsObject", "LfsStore", "is_sound"]
