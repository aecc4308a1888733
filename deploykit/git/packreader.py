"""One pack of a git object store: where an object lies, how large it would be, and its bytes.

Rules: nothing is inflated beyond the size its header gives; a stream that holds more or less than that is damaged. The
map of the file stays readable after a repack unlinks it. Objects are looked up in our own map of the index, which costs
a fifth of the general way; an index of another version than 2 goes that way.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dulwich.pack import Pack, PackIndex

#: A delta begins with two sizes of at most ten bytes each.
_SIZES: Final = 20
#: An object up to this size is inflated in one call. A stream that lies makes at most a thousand times as much.
SMALL: Final = 16 * 1024
#: A blob at least this large is handed out in pieces of this size.
PIECE: Final = 1024 * 1024

_MAGIC: Final = b"\xfftOc\x00\x00\x00\x02"
_FAN: Final = 8
_NAMES: Final = 8 + 256 * 4
_BLOCK: Final = 128
_LARGE: Final = 1 << 31
_LARGE_PACK: Final = 16 * 1024 * 1024


class Index:
    """A pack's index, version 2: sorted names and where each object lies.

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
        if self._data[:_FAN] != _MAGIC or len(self._data) < _NAMES:
            raise ValueError("not an index of version 2")
        self._fan = [0, *struct.unpack(">256I", self._data[_FAN:_NAMES])]
        count = self._fan[-1]
        self._offsets = _NAMES + count * (oid_length + 4)
        self._large = self._offsets + count * 4
        if sorted(self._fan) != self._fan or len(self._data) < self._large + 2 * oid_length:
            raise ValueError("the index is cut short")

    def object_offset(self, raw: bytes) -> int:
        """Return where the object of that name (raw) lies.

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
        """Let the kernel take back what the map holds of memory."""
        self._data.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Give back the map."""
        self._data.close()


class PackFile:
    """One pack, its index and its data mapped.

    Raises:
        OSError, ValueError, PackFileDisappeared: it cannot be read.
    """

    def __init__(self, pack: Pack, oid_length: int) -> None:
        path = Path(os.fspath(pack.data.path))
        self.index: Index | PackIndex
        try:
            self.index = Index(path.with_suffix(".idx"), oid_length)
        except (OSError, ValueError):
            self.index = pack.index
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.data = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)
        self.view = memoryview(self.data)

    def find(self, raw: bytes) -> int:
        """Return where an object lies.

        Raises:
            KeyError: it is not in this pack.
        """
        return self.index.object_offset(raw)  # type: ignore[arg-type]  # dulwich takes a binary id too

    def header(self, pos: int) -> tuple[int, int, int]:
        """Return (kind, size, position after the header)."""
        data = self.data
        byte = data[pos]
        kind = (byte >> 4) & 7
        size = byte & 15
        shift = 4
        pos += 1
        while byte & 0x80:
            byte = data[pos]
            size |= (byte & 0x7F) << shift
            shift += 7
            pos += 1
        return kind, size, pos

    def base_offset(self, pos: int) -> tuple[int, int]:
        """Return (distance back to the base, position after it) of an offset delta."""
        data = self.data
        byte = data[pos]
        distance = byte & 0x7F
        pos += 1
        while byte & 0x80:
            byte = data[pos]
            distance = ((distance + 1) << 7) | (byte & 0x7F)
            pos += 1
        return distance, pos

    def inflate(self, pos: int, size: int) -> bytes:
        """Inflate exactly `size` bytes; a stream that holds more or less is damaged.

        Raises:
            zlib.error: it is.
        """
        if size <= SMALL:
            try:
                out = zlib.decompress(self.view[pos : pos + size + (size >> 8) + 64], bufsize=size + 1)
            except zlib.error:
                pass  # damaged, or longer than any packer would make it: the long way tells
            else:
                if len(out) == size:
                    return out
        stream = zlib.decompressobj()
        step = size // 2 + 128  # a guess that keeps zlib's copy of what follows the stream small
        out = stream.decompress(self.view[pos : pos + step], size + 1)
        if stream.eof and len(out) == size:
            return out
        parts = [out]
        got = len(out)
        pos += step
        while not stream.eof and got <= size:
            fresh = self.view[pos : pos + step]
            if not fresh and not stream.unconsumed_tail:
                break
            pos += len(fresh)
            out = stream.decompress(stream.unconsumed_tail + bytes(fresh), size + 1 - got)
            got += len(out)
            parts.append(out)
        if got != size or not stream.eof:
            raise zlib.error("the stored size and the stream do not agree")
        return b"".join(parts)

    def pieces(self, pos: int, size: int) -> Iterator[bytes]:
        """Inflate `size` bytes in pieces."""
        stream = zlib.decompressobj()
        got = 0
        while not stream.eof:
            fresh = self.view[pos : pos + PIECE // 4]
            if not fresh and not stream.unconsumed_tail:
                break
            pos += len(fresh)
            pending = stream.unconsumed_tail + bytes(fresh)
            while pending and not stream.eof:
                out = stream.decompress(pending, PIECE)
                pending = stream.unconsumed_tail
                got += len(out)
                if got > size:
                    raise zlib.error("the stream holds more than the stored size")
                if out:
                    yield out
        if got != size or not stream.eof:
            raise zlib.error("the stored size and the stream do not agree")

    def delta_head(self, pos: int) -> bytes:
        """Inflate the first bytes of a delta: enough for the sizes it begins with."""
        stream = zlib.decompressobj()
        head = b""
        while len(head) < _SIZES and not stream.eof and pos < len(self.view):
            head += stream.decompress(self.view[pos : pos + 256])  # so little in cannot make much out
            pos += 256
        return head

    def let_go(self) -> None:
        """Let the kernel take back what the maps hold of memory; it is read again where it is needed again.

        Each look into a large pack maps its neighbourhood too, so that a tree of small files would map all of it.
        """
        if len(self.data) > _LARGE_PACK:
            self.data.madvise(mmap.MADV_DONTNEED)
            if isinstance(self.index, Index):
                self.index.let_go()

    def close(self) -> None:
        """Give back the maps."""
        if isinstance(self.index, Index):
            self.index.close()
        # A traceback may still hold a slice of the map; it then goes when the traceback does.
        with contextlib.suppress(BufferError):
            self.view.release()
            self.data.close()


def result_size(delta: bytes) -> int:
    """Return the size of what a delta makes, from its first bytes: after the size of what it stands on.

    Raises:
        IndexError: it is too short to say.
    """
    at = 0
    result = 0
    for _ in range(2):
        result = shift = 0
        while True:
            byte = delta[at]
            at += 1
            result |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
    return result
