"""The index of a pack: which objects it holds, and where each lies. Written in versions 1 and 2, read in version 2."""

from __future__ import annotations

import mmap
import os
import struct
import sys
from array import array
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Final

from deploykit.errors import PackError

#: What an index of version 2 begins with; version 1 has no such beginning.
INDEX_MAGIC: Final = b"\xfftOc\x00\x00\x00\x02"
_FAN: Final = 8
_NAMES: Final = 8 + 256 * 4
_BLOCK: Final = 128
_LARGE: Final = 1 << 31


class IndexReader:
    """A version 2 index, mapped: sorted ids and where each object lies.

    Raises:
        ValueError: it is of another version, or cut short.
    """

    def __init__(self, path: Path, oid_length: int) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._data = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)
        self._width = oid_length
        if self._data[:_FAN] != INDEX_MAGIC or len(self._data) < _NAMES:
            raise ValueError("not an index of version 2")
        self._fan = [0, *struct.unpack(">256I", self._data[_FAN:_NAMES])]
        count = self._fan[-1]
        self._offsets = _NAMES + count * (oid_length + 4)
        self._large = self._offsets + count * 4
        if sorted(self._fan) != self._fan or len(self._data) < self._large + 2 * oid_length:
            raise ValueError("the index is cut short")

    def object_offset(self, raw: bytes) -> int:
        """Return where the object with that binary id lies.

        Raises:
            KeyError: it is not in this pack.
        """
        data, width = self._data, self._width
        low, high = self._fan[raw[0]], self._fan[raw[0] + 1]
        while high - low > _BLOCK:
            middle = (low + high) // 2
            at = _NAMES + middle * width
            if data[at : at + width] <= raw:
                low = middle
            else:
                high = middle
        at = data[_NAMES + low * width : _NAMES + high * width].find(raw)
        if at % width and at > 0:  # across two names
            block = data[_NAMES + low * width : _NAMES + high * width]
            while at % width and at > 0:
                at = block.find(raw, at + 1)
        if at < 0:
            raise KeyError(raw)
        at = self._offsets + (low + at // width) * 4
        offset = int.from_bytes(data[at : at + 4], "big")
        if offset < _LARGE:
            return offset
        at = self._large + (offset - _LARGE) * 8
        return int.from_bytes(data[at : at + 8], "big")

    def let_go(self) -> None:
        """Let the kernel take back the memory of the map."""
        self._data.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Unmap the file."""
        self._data.close()


def index_v2(ids: list[bytes], crcs: array[int], offsets: array[int], checksum: bytes) -> Iterator[bytes]:
    """Yield a version 2 index without the checksum of its own at the end.

    Raises:
        PackError: an object is in the pack twice.
    """
    order = sorted(range(len(ids)), key=ids.__getitem__)
    names = b"".join(map(ids.__getitem__, order))
    if any(ids[a] == ids[b] for a, b in pairwise(order)):
        raise PackError("the origin sent an object twice in one pack")
    yield INDEX_MAGIC
    yield _fan_out(ids)
    yield names
    yield _big_endian(array("I", map(crcs.__getitem__, order)))
    large = array("Q")
    small = array("I")
    for at in map(offsets.__getitem__, order):
        if at < 1 << 31:
            small.append(at)
        else:
            small.append(1 << 31 | len(large))
            large.append(at)
    yield _big_endian(small)
    yield _big_endian(large)
    yield checksum


def index_v1(ids: list[bytes], offsets: array[int], checksum: bytes) -> Iterator[bytes]:
    """Yield a version 1 index, as old gits wrote it, without the checksum of its own at the end."""
    yield _fan_out(ids)
    for at in sorted(range(len(ids)), key=ids.__getitem__):
        yield (offsets[at] & 0xFFFFFFFF).to_bytes(4, "big") + ids[at]
    yield checksum


def _fan_out(ids: list[bytes]) -> bytes:
    counts = Counter(map(itemgetter(0), ids))
    return _big_endian(array("I", accumulate(counts[n] for n in range(256))))


def _big_endian(values: array[int]) -> bytes:
    if sys.byteorder == "little":
        values.byteswap()
    return values.tobytes()
