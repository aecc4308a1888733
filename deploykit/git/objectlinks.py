"""What commits, trees and tags point to, and whether all of it is there. Pure.

Rules: a malformed object is named in the error; the entries of trees, most of which stand in tree after tree, are
looked at once.
"""

from __future__ import annotations

import re
from binascii import Error as HexError
from binascii import hexlify, unhexlify
from collections.abc import Iterator
from itertools import filterfalse
from typing import Final

from deploykit.errors import PackError
from deploykit.git.objectformat import BLOB, COMMIT, KIND_CODES, KIND_NAMES, TAG, TREE, HashKind

_RECENT_ENTRIES: Final = 10_000
_KIND_BITS: Final = 0o170000
_DIRECTORY: Final = 0o040000
_GITLINK: Final = 0o160000


def commit_links(plain: bytes, hex_size: int, oid: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tree and the parents of a commit, as (kind, binary id).

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
    """Return what an annotated tag points to, as (kind, binary id).

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


class ObjectLinks:
    """Collects objects and the links between them.

    Args:
        hash_kind: the repository's object format.
        known: the ids of all objects, by kind; given, it is added to.
        missing: the links that lead to none of them, by kind; given, it is added to.

    `tags` maps each annotated tag to its target. All ids are binary.
    """

    def __init__(
        self,
        hash_kind: HashKind,
        known: dict[int, set[bytes]] | None = None,
        missing: dict[int, set[bytes]] | None = None,
    ) -> None:
        self._id_size = hash_kind.size
        self._hex_size = hash_kind.hex_size
        self._find_entries = re.compile(rb"[0-7]++ [^\0]++\0.{%d}" % hash_kind.size, re.DOTALL).findall
        self._recent: set[bytes] = set()
        self.known = {kind: set() for kind in KIND_NAMES} if known is None else known
        self.missing = {kind: set() for kind in KIND_NAMES} if missing is None else missing
        self.tags: dict[bytes, bytes] = {}

    def holds(self, oid: bytes) -> bool:
        """Return whether an object of any kind has that id."""
        return any(oid in ids for ids in self.known.values())

    def forget_recent(self) -> None:
        """Free the memory that tree entries seen lately take."""
        self._recent.clear()

    def note(self, kind: int, plain: bytes, oid: bytes) -> None:
        """Record an object, and what it points to.

        Raises:
            PackError: it is malformed.
        """
        self.known[kind].add(oid)
        self.missing[kind].discard(oid)
        if kind == TREE:
            entries = self._find_entries(plain)
            if b"".join(entries) != plain:
                raise PackError(f"tree {oid.hex()} is malformed")
            recent = self._recent
            fresh = list(filterfalse(recent.__contains__, entries))
            if len(recent) > _RECENT_ENTRIES:
                recent.clear()
            recent.update(fresh)
            self._link_entries(fresh)
        elif kind == COMMIT:
            for target_kind, target in commit_links(plain, self._hex_size, oid):
                self._link(target_kind, target)
        elif kind == TAG:
            target_kind, target = tag_link(plain, self._hex_size, oid)
            self.tags[oid] = target
            self._link(target_kind, target)

    def _link_entries(self, entries: list[bytes]) -> None:
        size = self._id_size
        trees, blobs = self.known[TREE], self.known[BLOB]
        no_tree, no_blob = self.missing[TREE], self.missing[BLOB]
        for entry in entries:
            oid = entry[-size:]
            if entry.startswith(b"100"):
                if oid not in blobs:
                    no_blob.add(oid)
                continue
            kind = int(entry[: entry.index(b" ")], 8) & _KIND_BITS
            if kind == _DIRECTORY:
                if oid not in trees:
                    no_tree.add(oid)
            elif kind != _GITLINK and oid not in blobs:
                no_blob.add(oid)

    def _link(self, kind: int, oid: bytes) -> None:
        if oid not in self.known[kind]:
            self.missing[kind].add(oid)
