"""Trees put into another tree: the tree that git would have, had the files been committed there. Reads and makes trees
only; no file is touched.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from deploykit.errors import TreeError
from deploykit.git.composedstore import ComposedStore
from deploykit.git.objectreader import ObjectReader
from deploykit.trees.entries import DIRECTORY, parsed_tree
from deploykit.trees.names import name_problem, shown

Row = tuple[bytes, int, bytes]

_MAX_TREE_BYTES: Final = 64 << 20


@attrs.frozen(kw_only=True, slots=True)
class Mount:
    """A repository's tree inside a composed one.

    Args:
        path: where its root is, relative to the composed root; empty for the root itself.
        repo: the repository's name.
        commit: whose tree it is (hex).
    """

    path: bytes
    repo: str
    commit: str


def fingerprint_with(fingerprint: str, mounts: Iterable[Mount], lfs: Iterable[bytes] = ()) -> str:
    """Return the fingerprint of a tree with others in it: their places decide whose attributes count.

    Args:
        lfs: the places of the repositories whose pointers are written as what they stand for.
    """
    places, filled = sorted(mount.path for mount in mounts), sorted(lfs)
    if not places and not filled:
        return fingerprint
    text = repr((fingerprint, places, filled)) if filled else repr((fingerprint, places))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def graft(store: ComposedStore, tree: bytes, grafts: Mapping[bytes, bytes]) -> bytes:
    """Return the id of `tree` with other trees at some paths, each instead of what is there.

    The new trees are added to `store`; the root is `tree` itself where there is nothing to put.

    Args:
        tree: id (hex) of a tree in the store; empty for an empty one.
        grafts: path -> id (hex) of the tree to be there. Directories on the way are made where there are none.

    Raises:
        TreeError: a path cannot be one of a tree, leads through what is no directory, or a tree cannot be read.
    """
    with ObjectReader(store, max_bytes=_MAX_TREE_BYTES) as reader:
        return _graft(store, reader, tree, _nested(grafts), b"")


_Nested = dict[bytes, "bytes | _Nested"]


def _nested(grafts: Mapping[bytes, bytes]) -> _Nested:
    root: _Nested = {}
    for path, oid in grafts.items():
        here = root
        *way, last = path.split(b"/")
        for name in (*way, last):
            if why := name_problem(name):
                raise TreeError(f"{shown(path)} cannot be a path in a tree: {why}", "choose another one")
        for name in way:
            found = here.setdefault(name, {})
            if isinstance(found, bytes):
                raise TreeError(f"{shown(path)} is inside another one", "two repositories cannot be inside each other")
            here = found
        if last in here:
            raise TreeError(f"{shown(path)} stands for two", "two repositories cannot be inside each other")
        here[last] = oid
    return root


def _graft(store: ComposedStore, reader: ObjectReader, tree: bytes, grafts: _Nested, path: bytes) -> bytes:
    if not grafts:
        return tree or store.keep_tree(b"")
    listed = parsed_tree(reader, tree, path) if tree else []
    rows = {row[0]: row for row in listed}
    if len(rows) != len(listed):
        raise TreeError(f"{shown(path) or 'the root'} holds one name twice", "check the repository")
    for name, what in grafts.items():
        here = path + b"/" + name if path else name
        if isinstance(what, bytes):
            rows[name] = (name, DIRECTORY, what)
            continue
        there = rows.get(name)
        if there is not None and stat.S_IFMT(there[1]) != DIRECTORY:
            raise TreeError(f"{shown(here)} is in the way: it is no directory", "choose another path")
        below = _graft(store, reader, there[2] if there is not None else b"", what, here)
        rows[name] = (name, DIRECTORY, below)
    return store.keep_tree(serialized(rows.values()))


def serialized(rows: Iterable[Row]) -> bytes:
    """Return a tree's content from its (name, mode, hex id), in git's order."""

    def order(row: Row) -> bytes:
        return row[0] + b"/" if stat.S_IFMT(row[1]) == DIRECTORY else row[0]

    ordered = sorted(rows, key=order)
    return b"".join(b"%o %s\0%s" % (mode, name, bytes.fromhex(oid.decode())) for name, mode, oid in ordered)
