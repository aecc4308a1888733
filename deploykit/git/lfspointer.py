"""The pointer file that Git LFS keeps in a repository in place of an object's content. Pure.

The source of the rules is `docs/spec.md` of Git LFS. Only what its programs write today counts: three lines in one
order, and a sha256. A pointer with extensions (`ext-0-NAME`) is none here: its object is not what a checkout holds.
An empty file is an empty file, and no pointer.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

#: No file of that many bytes is a pointer.
POINTER_MAX: Final = 1024
#: How a file begins that git-lfs takes for a pointer, of whatever version.
POINTER_START: Final = b"version https://git-lfs.github.com/spec/"
_POINTER: Final = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n"
    rb"oid sha256:(?P<oid>[0-9a-f]{64})\n"
    rb"size (?P<size>0|[1-9][0-9]{0,17})\n"
)


@attrs.frozen(slots=True)
class LfsPointer:
    """An object of Git LFS: its sha256 in hex, and its size in bytes."""

    oid: str
    size: int


def parse_pointer(data: bytes) -> LfsPointer | None:
    """Return the object that a file's content stands for; None where it is not exactly a pointer.

    >>> parse_pointer(b"version https://git-lfs.github.com/spec/v1\\noid sha256:%b\\nsize 7\\n" % (b"a" * 64)).size
    7
    >>> parse_pointer(b"")
    """
    found = _POINTER.fullmatch(data) if len(data) < POINTER_MAX else None
    return LfsPointer(found["oid"].decode(), int(found["size"])) if found else None


__all__ = ["POINTER_MAX", "POINTER_START", "LfsPointer", "parse_pointer"]
