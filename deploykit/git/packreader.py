"""One pack of a git object store: where an object lies, how large it would be, and its bytes.

Rules:

* Nothing is inflated beyond the size in its header; a stream that holds more or less than that is damaged.
* The map of the file stays readable after a repack unlinks it.
* Objects are looked up in our own map of the index, at a fifth of dulwich's cost; dulwich reads indexes of version 1.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from deploykit.git.packindex import IndexReader

if TYPE_CHECKING:
    from dulwich.pack import Pack, PackIndex

#: A delta begins with two sizes of at most ten bytes each.
_SIZES: Final = 20
#: An object up to this size is inflated in one call. A stream that lies makes at most a thousand times as much.
SMALL: Final = 16 * 1024
#: A blob at least this large is handed out in pieces of this size.
PIECE: Final = 1024 * 1024

_LARGE_PACK: Final = 16 * 1024 * 1024


class PackFile:
    """One pack, its index and its data mapped.

    Raises:
        OSError, ValueError, PackFileDisappeared: it cannot be read.
    """

    def __init__(self, pack: Pack, oid_length: int) -> None:
        path = Path(os.fspath(pack.data.path))
        #: The directory of the repository: above `objects/pack`.
        self.repository = str(path.parents[2])
        self.index: IndexReader | PackIndex
        try:
            self.index = IndexReader(path.with_suffix(".idx"), oid_length)
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

    def inflate(self, pos: int, size: int) -> bytes:
        """Return the `size` bytes that the stream at `pos` holds.

        Raises:
            zlib.error: it holds more or less, or is damaged.
        """
        if size <= SMALL:
            try:
                out = zlib.decompress(self.view[pos : pos + size + (size >> 8) + 64], bufsize=size + 1)
            except zlib.error:
                pass  # damaged, or longer than any packer would make it: the loop below finds out
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
        """Yield the `size` bytes that the stream at `pos` holds, in pieces.

        Raises:
            zlib.error: it holds more or less, or is damaged.
        """
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
        """Return the first bytes of a delta: enough for the sizes it begins with."""
        stream = zlib.decompressobj()
        head = b""
        while len(head) < _SIZES and not stream.eof and pos < len(self.view):
            head += stream.decompress(self.view[pos : pos + 256])  # 256 bytes cannot inflate to much
            pos += 256
        return head

    def let_go(self) -> None:
        """Let the kernel take back the memory of the maps; it is read again where needed.

        Each read from a large pack maps the pages around it too, so a tree of small files would map all of it.
        """
        if len(self.data) > _LARGE_PACK:
            self.data.madvise(mmap.MADV_DONTNEED)
            if isinstance(self.index, IndexReader):
                self.index.let_go()

    def close(self) -> None:
        """Unmap the files."""
        if isinstance(self.index, IndexReader):
            self.index.close()
        # A traceback may still hold a slice of the map, which is then unmapped with it.
        with contextlib.suppress(BufferError):
            self.view.release()
            self.data.close()
