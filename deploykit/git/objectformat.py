"""The two hashes git names objects with, and the four kinds of object.

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


def hash_named(name: str) -> HashKind | None:
    """`sha1` or `sha256`; None for a format we do not know."""
    return {"sha1": SHA1, "sha256": SHA256}.get(name)


def hash_of_length(hex_digits: int) -> HashKind | None:
    """The format whose ids have so many hex digits."""
    return {40: SHA1, 64: SHA256}.get(hex_digits)
