"""The two hashes git names objects with, and the kinds of object.

Rules: binary ids inside this package, `ObjectId` (hex) at its edge. SHA-1 here is git's naming scheme, not a defence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import attrs

if TYPE_CHECKING:
    from hashlib import _Hash

COMMIT: Final = 1
TREE: Final = 2
BLOB: Final = 3
TAG: Final = 4
OFS_DELTA: Final = 6
REF_DELTA: Final = 7

KIND_NAMES: Final = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob", TAG: b"tag"}
KIND_CODES: Final = {name: code for code, name in KIND_NAMES.items()}

#: An object as it was read: its kind and its bytes.
Found = tuple[int, bytes]


@attrs.frozen(slots=True)
class HashKind:
    """One of git's object formats: its name, its hash, and the length of an id in bytes."""

    name: Literal["sha1", "sha256"]
    new: Callable[[bytes], _Hash]
    size: int

    @property
    def hex_size(self) -> int:
        """The length of an id in hex digits."""
        return 2 * self.size


SHA1: Final = HashKind("sha1", partial(hashlib.sha1, usedforsecurity=False), 20)
SHA256: Final = HashKind("sha256", hashlib.sha256, 32)
_BY_NAME: Final[dict[str, HashKind]] = {kind.name: kind for kind in (SHA1, SHA256)}
_BY_SIZE: Final = {kind.size: kind for kind in (SHA1, SHA256)}


def hash_named(name: str) -> HashKind | None:
    """Return the object format `sha1` or `sha256`; None for another name."""
    return _BY_NAME.get(name)


def hash_of_size(size: int) -> HashKind:
    """Return the object format whose ids have `size` bytes.

    Raises:
        KeyError: there is none.
    """
    return _BY_SIZE[size]


def blob_id(content: bytes, oid_length: int) -> bytes:
    """Return the binary id that `content` has as a blob, where ids have `oid_length` bytes."""
    digest = _BY_SIZE[oid_length].new(b"blob %d\0" % len(content))
    digest.update(content)
    return digest.digest()
