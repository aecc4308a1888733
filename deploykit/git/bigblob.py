"""A blob too large to hold in memory."""

from __future__ import annotations

import zlib
from binascii import crc32
from typing import Final

from deploykit.errors import PackError
from deploykit.git.objectformat import HashKind

#: Blobs above this are hashed as they stream by, and never held whole.
BIG: Final = 1 << 20


class BigBlob:
    """Inflates and hashes a blob piece by piece as it streams by."""

    def __init__(self, hash_kind: HashKind, size: int, offset: int, crc: int) -> None:
        self._inflater = zlib.decompressobj()
        self._sum = hash_kind.new(b"blob %d\0" % size)
        self._size = size
        self._seen = 0
        self._offset = offset
        self.crc = crc
        self.oid = b""

    def feed(self, data: bytes, pos: int) -> tuple[int, bool]:
        """Take `data` from `pos`; return the position after, and whether the blob is whole."""
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
