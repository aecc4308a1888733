"""The objects of a repository, read through dulwich. Short-lived: an idle mirror holds no file and no memory.

Rules:

* A store belongs to one thread: dulwich's caches have no lock.
* Damage is reported as `MirrorCorrupt`, never as an error of dulwich.
* dulwich itself looks again for packs that upkeep removes meanwhile.
"""

from __future__ import annotations

import contextlib
import threading
import traceback
import weakref
from pathlib import Path

from dulwich.object_format import get_object_format
from dulwich.object_store import DiskObjectStore
from dulwich.objects import RawObjectID

from deploykit.errors import MirrorCorrupt
from deploykit.git.objectformat import Found, HashKind


class ObjectStore:
    """A reader of one object store. Close it, or use it as a context manager."""

    def __init__(self, path: Path, hash_kind: HashKind) -> None:
        self._path = path
        self._open(hash_kind)

    def _open(self, hash_kind: HashKind) -> None:
        self.hash_kind = hash_kind
        self.store = DiskObjectStore(str(self._path / "objects"), object_format=get_object_format(hash_kind.name))

    def __enter__(self) -> ObjectStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every file."""
        with contextlib.suppress(BufferError):  # a reader that failed may still hold a view of the mapped file
            self.store.close()

    def reopen(self, hash_kind: HashKind) -> None:
        """Open the store again with another object format, while it is still empty."""
        self.close()
        self._open(hash_kind)

    def holds(self, oid: bytes) -> bool:
        """Return whether the object (binary id) is there."""
        try:
            return self.store.contains_packed(RawObjectID(oid)) or self._is_loose(oid)
        except OSError:
            raise
        except Exception as exc:
            raise self._damaged(oid, exc) from exc

    def find(self, oid: bytes) -> Found | None:
        """Return the kind and the bytes of an object (binary id); None when it is not there."""
        try:
            return self.store.get_raw(RawObjectID(oid))
        except KeyError:
            return None
        except OSError:
            raise
        except Exception as exc:
            raise self._damaged(oid, exc) from exc

    def _is_loose(self, oid: bytes) -> bool:
        name = oid.hex()
        return (self._path / "objects" / name[:2] / name[2:]).is_file()

    def _damaged(self, oid: bytes, exc: Exception) -> MirrorCorrupt:
        # What dulwich raises on damage is whatever its parsers run into; its frames hold on to the mapped file.
        traceback.clear_frames(exc.__traceback__)
        reason = f"{type(exc).__name__}: {exc}"[:200]
        return MirrorCorrupt(
            f"object {oid.hex()} in {self._path} is damaged ({reason})",
            "run `deploykit mirror check --repair`",
            repository=str(self._path),
        )


class StorePerThread:
    """One store for each thread. Those still open when this is collected are closed with it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._open: dict[int, ObjectStore] = {}
        weakref.finalize(self, _close_all, self._open)

    def get(self, hash_kind: HashKind) -> ObjectStore:
        """Return this thread's store."""
        with self._lock:
            mine = self._open.get(threading.get_ident())
            if mine is None or mine.hash_kind is not hash_kind:
                mine = self._open[threading.get_ident()] = ObjectStore(self._path, hash_kind)
            return mine

    def release(self) -> None:
        """Close this thread's store."""
        with self._lock:
            mine = self._open.pop(threading.get_ident(), None)
        if mine is not None:
            mine.close()

    def close(self) -> None:
        """Close all stores. No other thread may still read."""
        with self._lock:
            _close_all(self._open)


def _close_all(stores: dict[int, ObjectStore]) -> None:
    while stores:
        stores.popitem()[1].close()
