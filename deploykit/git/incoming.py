"""Receive a pack into quarantine; complete, check and index it there; install it only when it is whole.

Rules:

* No reader sees what is in quarantine.
* Pack and index are fsynced before their names appear. The index's name appears last: readers look for indexes.
* A failure leaves the store as it was.
"""

from __future__ import annotations

import os
import zlib
from binascii import crc32
from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path
from types import MappingProxyType
from typing import Final

import attrs

from deploykit.errors import MirrorError, PackError
from deploykit.git.objectformat import BLOB, COMMIT, KIND_NAMES, TAG, TREE, Found, HashKind
from deploykit.git.packindex import index_v2
from deploykit.git.packscanner import PackScanner, ScanLimits
from deploykit.system.durable import sync_directory, write_all

_NONE: Final[Mapping[bytes, bytes]] = MappingProxyType({})
_READ: Final = 1 << 20
_SPACE_CHECK: Final = 32 << 20


@attrs.frozen(kw_only=True, slots=True)
class ReceivedPack:
    """A pack that was installed: objects and bytes, its annotated tags with their targets, its commits."""

    objects: int = 0
    received: int = 0
    tags: Mapping[bytes, bytes] = _NONE
    commits: Set[bytes] = frozenset()


class IncomingPack:
    """A pack on its way into the store. A context manager: leaving it before `finish` removes what came.

    Args:
        objects: the mirror's `objects` directory.
        quarantine: a directory on the same file system, used by nobody else (the caller holds the mirror's lock).
        hash_kind: the repository's object format.
        find: returns an object of the store, or None.
        holds: returns whether the store has an object.
        limits: sizes of one object.
        max_bytes: of the whole pack.
        tick: called as bytes and objects come; it may raise.
        room: called now and then as the file grows; raises when the disk is nearly full.
    """

    def __init__(
        self,
        objects: Path,
        quarantine: Path,
        hash_kind: HashKind,
        *,
        find: Callable[[bytes], Found | None],
        holds: Callable[[bytes], bool],
        limits: ScanLimits,
        max_bytes: int,
        tick: Callable[[], None] = lambda: None,
        room: Callable[[], None] = lambda: None,
    ) -> None:
        self._objects = objects
        self._pack = quarantine / "pack"
        self._index = quarantine / "idx"
        self._hash = hash_kind
        self._find = find
        self._holds = holds
        self._max_bytes = max_bytes
        self._tick = tick
        self._room = room
        self._next_room = _SPACE_CHECK
        self.received = 0
        self._fd = os.open(self._pack, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o444)
        self.scanner = PackScanner(hash_kind, self._fd, external=find, limits=limits, tick=tick)

    def __enter__(self) -> IncomingPack:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)
        for path in (self._pack, self._index):
            path.unlink(missing_ok=True)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the pack."""
        self.received += len(data)
        if self.received > self._max_bytes:
            raise PackError(f"the pack is larger than {self._max_bytes} bytes", "raise max_pack_bytes, if it is right")
        if self.received >= self._next_room:
            self._next_room = self.received + _SPACE_CHECK
            self._room()
        write_all(self._fd, data)
        self.scanner.feed(data)

    def finish(self, wants: Iterable[bytes]) -> ReceivedPack:
        """Resolve, check and complete the pack, index it, and move it into the store.

        Raises:
            PackError: the pack is damaged, incomplete, or points to what is neither in it nor held.
        """
        scanner = self.scanner
        scanner.finish()
        self._check_links(wants)
        if scanner.total == 0:
            return ReceivedPack(received=self.received)
        checksum = self._complete()
        commits = scanner.known.pop(COMMIT)
        scanner.known.clear()
        self._write_index(checksum)
        self._install(checksum.hex())
        return ReceivedPack(objects=scanner.total, received=self.received, tags=scanner.tags, commits=commits)

    def _check_links(self, wants: Iterable[bytes]) -> None:
        """Check that every id the pack needs is in it or in the store.

        The store never holds an object without all that it points to (each pack was checked like this on its way in),
        so what it holds needs no further walk.
        """
        scanner = self.scanner
        for kind in (COMMIT, TREE, BLOB, TAG):
            for oid in scanner.missing[kind]:
                if not self._holds(oid):
                    what = KIND_NAMES[kind].decode()
                    raise PackError(f"the origin did not send {what} {oid.hex()}", "git fsck the origin")
        for oid in wants:
            if not any(oid in known for known in scanner.known.values()) and not self._holds(oid):
                raise PackError(f"the origin did not send the object {oid.hex()} that it lists", "git fsck the origin")

    def _complete(self) -> bytes:
        """Append the bases that a thin pack leaves out. Return the pack's checksum."""
        scanner, fd = self.scanner, self._fd
        bases = sorted(oid for oid in scanner.external_bases if not any(oid in k for k in scanner.known.values()))
        if not bases:
            return scanner.checksum
        end = os.fstat(fd).st_size - self._hash.size
        os.ftruncate(fd, end)
        os.lseek(fd, end, os.SEEK_SET)
        for oid in bases:
            found = self._find(oid)
            if found is None:
                raise MirrorError(f"object {oid.hex()} left the store while a pack was taken in", "fetch again")
            entry = _object_head(found[0], len(found[1])) + zlib.compress(found[1], 1)
            scanner.offsets.append(end)
            scanner.crcs.append(crc32(entry))
            scanner.ids.append(oid)
            write_all(fd, entry)
            end += len(entry)
            self._tick()
        os.pwrite(fd, len(scanner.ids).to_bytes(4, "big"), 8)
        total = self._hash.new(b"")
        os.lseek(fd, 0, os.SEEK_SET)
        while data := os.read(fd, _READ):
            total.update(data)
        write_all(fd, total.digest())
        return total.digest()

    def _write_index(self, checksum: bytes) -> None:
        scanner = self.scanner
        fd = os.open(self._index, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o444)
        try:
            total = self._hash.new(b"")
            for piece in index_v2(scanner.ids, scanner.crcs, scanner.offsets, checksum):
                total.update(piece)
                write_all(fd, piece)
            write_all(fd, total.digest())
            os.fsync(fd)
        finally:
            os.close(fd)

    def _install(self, name: str) -> None:
        os.fsync(self._fd)
        packs = self._objects / "pack"
        self._pack.rename(packs / f"pack-{name}.pack")
        self._index.rename(packs / f"pack-{name}.idx")
        sync_directory(packs)


def _object_head(kind: int, size: int) -> bytes:
    head = bytearray()
    byte, size = kind << 4 | size & 15, size >> 4
    while size:
        head.append(byte | 128)
        byte, size = size & 127, size >> 7
    head.append(byte)
    return bytes(head)
