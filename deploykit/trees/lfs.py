"""Git LFS in a tree: which files are the content of an object, and that content, checked while it is written.

Rules:

* As for git-lfs, a file is an object's content where its own repository's attributes say `filter=lfs` and a pointer is
  stored. What is stored in any other file is its content.
* An object is hashed on its way into the file: it is what the pointer says, or an error names it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from deploykit.errors import TreeDamaged, TreeError
from deploykit.git.lfspointer import POINTER_MAX, POINTER_START, LfsPointer, parse_pointer
from deploykit.git.objectformat import hash_of_size
from deploykit.trees.names import shown

_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_PIECE: Final = 1 << 20


class LfsObjects(Protocol):
    """Where the objects of one repository are."""

    def path(self, pointer: LfsPointer, /) -> Path | None:
        """Return the file of an object; None where it is not there, or has another size."""

    def forget(self) -> None:
        """Have all of them looked for again by the next fetch: one is missing."""


#: The root of a repository in a tree (empty for the tree's own) -> its objects; none for one whose pointers stay.
LfsPlaces = Mapping[bytes, LfsObjects]


class LfsFile(NamedTuple):
    """A file of a tree that is the content of an object. `root` is that of its repository in the tree."""

    path: bytes
    root: bytes
    pointer: LfsPointer


class LfsContent:
    """The content of an object, in pieces.

    `size` is that of all of them, in bytes; `oid`, when the last one is out, their git id (binary).

    Args:
        path: of the file in the tree.
        file: where the object is.
        oid_length: bytes of a git id.
    """

    def __init__(self, path: bytes, pointer: LfsPointer, file: Path, oid_length: int) -> None:
        self.oid = b""
        self.size = pointer.size
        self._path = path
        self._pointer = pointer
        self._file = file
        self._oid_length = oid_length

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces. Use nothing of the file before the iteration has ended.

        Raises:
            TreeDamaged: they are not what the pointer says.
        """
        size = self.size
        checked, named = hashlib.sha256(), hash_of_size(self._oid_length).new(b"blob %d\0" % size)
        try:
            fd = os.open(self._file, _READ)
        except OSError as error:
            raise self._damaged(str(error.strerror)) from error
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise self._damaged("it is no file")
            while piece := self._read(fd):
                size -= len(piece)
                if size < 0:
                    break
                checked.update(piece)
                named.update(piece)
                yield piece
        finally:
            os.close(fd)
        if size or checked.hexdigest() != self._pointer.oid:
            raise self._damaged("its content does not hash to its name")
        self.oid = named.digest()

    def _read(self, fd: int) -> bytes:
        try:
            return os.read(fd, _PIECE)
        except OSError as error:
            raise self._damaged(str(error.strerror)) from error

    def _damaged(self, why: str) -> TreeDamaged:
        return TreeDamaged(
            f"the Git LFS object {self._pointer.oid} of {shown(self._path)} is damaged: {why}",
            f"remove {self._file}, and fetch the mirror again",
        )


def looks_like_pointer(content: bytes | Iterator[bytes]) -> bool:
    """Return whether what is stored begins as a pointer, and is no longer than one."""
    return isinstance(content, bytes) and len(content) < POINTER_MAX and content.startswith(POINTER_START)


def stored_pointer(path: bytes, content: bytes | Iterator[bytes]) -> LfsPointer | None:
    """Return the pointer that is stored in a file; None where it is an ordinary one.

    Raises:
        TreeError: it looks like a pointer, and is none that can be followed.
    """
    if not isinstance(content, bytes) or not looks_like_pointer(content):
        return None
    pointer = parse_pointer(content)
    if pointer is None:
        raise TreeError(
            f"{shown(path)} looks like a pointer of Git LFS, and is none that can be followed",
            "see `git lfs pointer --check --file FILE`, and commit the file again",
        )
    return pointer
