"""A loose object: one file, its head with kind and size, and the content, compressed as one stream.

Rules: nothing is expanded beyond the size that the head states, and no more than a caller allows. A head that lies is
damage, whichever way it lies.
"""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path
from typing import Final

from deploykit.git.objectformat import KIND_CODES, Found

#: The longest head: the name of a kind, and a size of 64 bits.
_HEAD: Final = 32
_SHAPE: Final = re.compile(rb"([a-z]{1,10}) (0|[1-9][0-9]{0,18})\0")
_PIECE: Final = 64 << 10


class LooseTooLarge(Exception):
    """The object states a size above what the caller allows; `size` is in bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


def read_loose(path: str | Path, max_bytes: int) -> Found | None:
    """Return the kind and the content of the loose object at `path`; None where there is no such file.

    Raises:
        LooseTooLarge: it states more than `max_bytes`; nothing was expanded.
        ValueError: it is no object, or its content is longer or shorter than it states.
        zlib.error: its stream is damaged.
        OSError: the disk fails.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with os.fdopen(fd, "rb", buffering=0) as file:
        stream = zlib.decompressobj()
        begin = stream.decompress(file.read(_PIECE), _HEAD)
        head = _SHAPE.match(begin)
        if head is None or head[1] not in KIND_CODES:
            raise ValueError("its head is none of an object")
        size = int(head[2])
        if size > max_bytes:
            raise LooseTooLarge(size)
        parts = [begin[head.end() :]]
        got = len(parts[0])
        while got <= size and not stream.eof:
            data = stream.unconsumed_tail or file.read(_PIECE)
            parts.append(stream.decompress(data, size + 1 - got))
            got += len(parts[-1])
            if not data and not parts[-1]:
                break
    if got != size or not stream.eof:
        raise ValueError("its content has another length than it states")
    return KIND_CODES[head[1]], b"".join(parts)


__all__ = ["LooseTooLarge", "read_loose"]
