"""What is in a pack, byte by byte: the heads of its objects, deltas, and what commits and tags point to. Pure.

Rules: nothing is believed: a size is told to the caller before anything is allocated for it, a malformed object is
named; blobs too large to hold are inflated and hashed piece by piece.
"""

from __future__ import annotations

import zlib
from binascii import Error as HexError
from binascii import crc32, hexlify, unhexlify
from collections.abc import Iterator
from typing import Final

from deploykit.errors import PackError
from deploykit.git.objectformat import COMMIT, KIND_CODES, KIND_NAMES, OFS_DELTA, REF_DELTA, TREE, HashKind

#: What an object is: its kind and its bytes.
Found = tuple[int, bytes]

#: Blobs above this are hashed as they stream by, and never held whole.
BIG: Final = 1 << 20


class Cache:
    """Objects by offset or id, up to so many bytes: two halves, the older dropped whole when the younger is full."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._young: dict[int | bytes, Found] = {}
        self._old: dict[int | bytes, Found] = {}
        self._size = 0

    def get(self, key: int | bytes) -> Found | None:
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is not None:
                self.put(key, *found)
        return found

    def put(self, key: int | bytes, kind: int, plain: bytes) -> None:
        if len(plain) > self._half >> 1:
            return
        self._young[key] = (kind, plain)
        self._size += len(plain) + 200
        if self._size > self._half:
            self._old, self._young, self._size = self._young, {}, 0


class BigBlob:
    """A blob too large to hold: inflated and hashed piece by piece as it streams by."""

    def __init__(self, hash_kind: HashKind, size: int, offset: int, crc: int) -> None:
        self._inflater = zlib.decompressobj()
        self._sum = hash_kind.new(b"blob %d\0" % size)
        self._size = size
        self._seen = 0
        self._offset = offset
        self.crc = crc
        self.oid = b""

    def feed(self, data: bytes, pos: int) -> tuple[int, bool]:
        """Take `data` from `pos`; return where it stopped, and whether the blob is whole."""
        piece = data[pos:] if pos else data
        todo = piece
        try:
            while todo and not self._inflater.eof:
                plain = self._inflater.decompress(todo, BIG)
                self._sum.update(plain)
                self._seen += len(plain)
                todo = self._inflater.unconsumed_tail
                if self._seen > self._size:
                    raise PackError(f"the object at {self._offset} is longer than it says")
        except zlib.error as exc:
            raise PackError(f"the object at {self._offset} cannot be inflated: {exc}") from None
        used = len(piece) - len(self._inflater.unused_data)
        self.crc = crc32(memoryview(piece)[:used], self.crc)
        if self._inflater.eof:
            if self._seen != self._size:
                raise PackError(f"the object at {self._offset} is shorter than it says")
            self.oid = self._sum.digest()
        return pos + used, self._inflater.eof


def read_header(data: bytes, pos: int, offset: int, id_size: int) -> tuple[int, int, int | bytes | None, int]:
    """Read one object's head at `pos`: kind, size, base (offset or id) of a delta, and where its data starts.

    Raises:
        IndexError: `data` ends inside the head.
        PackError: no object has such a head.
    """
    byte = data[pos]
    pos += 1
    kind = byte >> 4 & 7
    size = byte & 15
    shift = 4
    while byte & 128:
        byte = data[pos]
        pos += 1
        size |= (byte & 127) << shift
        shift += 7
    if shift > 67:
        raise PackError(f"the object at {offset} has an impossible size")
    if kind in KIND_NAMES:
        return kind, size, None, pos
    if kind == OFS_DELTA:
        byte = data[pos]
        pos += 1
        back = byte & 127
        while byte & 128:
            byte = data[pos]
            pos += 1
            back = (back + 1) << 7 | byte & 127
        if back == 0 or offset - back < 12:
            raise PackError(f"the delta at {offset} has its base outside the pack")
        return kind, size, offset - back, pos
    if kind == REF_DELTA:
        base = data[pos : pos + id_size]
        if len(base) < id_size:
            raise IndexError
        return kind, size, base, pos + id_size
    raise PackError(f"the object at {offset} is of no known kind")


def delta_result_size(delta: bytes) -> int:
    """The size of what a delta makes, as its head says; 0 when it has no such head (applying it then fails)."""
    pos = 0
    for _ in range(2):
        size = shift = 0
        while pos < len(delta):
            byte = delta[pos]
            pos += 1
            size |= (byte & 127) << shift
            shift += 7
            if not byte & 128:
                break
    return size


def commit_links(plain: bytes, hex_size: int, oid: bytes) -> Iterator[tuple[int, bytes]]:
    """The tree and the parents of a commit.

    Raises:
        PackError: it has no proper head.
    """
    pos = 5 + hex_size
    try:
        if plain[:5] != b"tree " or plain[pos : pos + 1] != b"\n":
            raise PackError(f"commit {hexlify(oid).decode()} is malformed")
        yield TREE, unhexlify(plain[5:pos])
        pos += 1
        while plain.startswith(b"parent ", pos):
            stop = pos + 7 + hex_size
            if plain[stop : stop + 1] != b"\n":
                raise PackError(f"commit {hexlify(oid).decode()} is malformed")
            yield COMMIT, unhexlify(plain[pos + 7 : stop])
            pos = stop + 1
    except HexError:
        raise PackError(f"commit {hexlify(oid).decode()} is malformed") from None


def tag_link(plain: bytes, hex_size: int, oid: bytes) -> tuple[int, bytes]:
    """What an annotated tag points to.

    Raises:
        PackError: it has no proper head.
    """
    stop = 7 + hex_size
    kind = KIND_CODES.get(plain[stop + 6 : plain.find(b"\n", stop + 6)])
    if plain[:7] != b"object " or plain[stop : stop + 6] != b"\ntype " or kind is None:
        raise PackError(f"tag {hexlify(oid).decode()} is malformed")
    try:
        return kind, unhexlify(plain[7:stop])
    except HexError:
        raise PackError(f"tag {hexlify(oid).decode()} is malformed") from None
