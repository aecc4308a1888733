"""Which paths differ between two trees, for people to read: nothing is written from it. Pure.

Rules:

* Only directories that differ are read.
* Names and modes are shown as they are stored, however odd: `trees` refuses what must not be written.
* A tree of a few objects can describe any number of files: paths are counted up to a limit, and few are kept.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, Literal

import attrs
from dulwich.errors import ObjectFormatException
from dulwich.objects import parse_tree

from deploykit.errors import TreeError

ChangeKind = Literal["added", "removed", "changed", "renamed"]
#: An entry of a tree: name, mode, id in hex.
TreeRow = tuple[bytes, int, bytes]
#: Directories inside directories, and bytes of a path, that are followed.
_MAX_DEPTH: Final = 200
_MAX_PATH: Final = 4000


@attrs.frozen(kw_only=True, slots=True)
class PathChange:
    """A file, link or submodule that differs. Modes are as stored; 0 where it is not there.

    Args:
        old_path: of one that was renamed and is the same otherwise.
    """

    path: bytes
    kind: ChangeKind
    old_mode: int = 0
    new_mode: int = 0
    old_path: bytes = b""


@attrs.frozen(kw_only=True, slots=True)
class TreeChanges:
    """What differs between two trees.

    Args:
        paths: the first of them, in git's order; a renamed file is one change where both ends are among them.
        counts: how many there are of each kind.
        complete: all were counted.
    """

    paths: tuple[PathChange, ...]
    counts: Mapping[ChangeKind, int] = attrs.field(eq=dict, hash=False)
    complete: bool


class _Full(Exception):
    """Enough was counted: internal to this module."""


def rows_of(raw: bytes, id_size: int, oid: bytes) -> list[TreeRow]:
    """Return the entries of a tree.

    Raises:
        TreeError: it is malformed.
    """
    try:
        return list(parse_tree(raw, id_size, strict=False))
    except (ObjectFormatException, ValueError) as error:
        raise TreeError(f"tree {oid.decode()} is malformed: {error}", "check the repository") from error


class _Comparer:
    def __init__(self, rows: Callable[[bytes], list[TreeRow]], kept: int, most: int) -> None:
        self._rows = rows
        self._kept = kept
        self._most = most
        self.counts: Counter[ChangeKind] = Counter()
        self.paths: list[tuple[PathChange, bytes]] = []
        self.complete = True

    def trees(self, old: bytes, new: bytes, path: bytes, depth: int) -> None:
        if old == new:
            return
        if depth > _MAX_DEPTH or len(path) > _MAX_PATH:
            self.complete = False
            return
        before = {name: (mode, oid) for name, mode, oid in (self._rows(old) if old else ())}
        after = {name: (mode, oid) for name, mode, oid in (self._rows(new) if new else ())}
        for name in sorted(before.keys() | after.keys()):
            was, now = before.get(name), after.get(name)
            if was == now:
                continue
            full = path + b"/" + name if path else name
            old_tree = was[1] if was is not None and stat.S_ISDIR(was[0]) else b""
            new_tree = now[1] if now is not None and stat.S_ISDIR(now[0]) else b""
            if was is not None and not old_tree and now is not None and not new_tree:
                self._add(PathChange(path=full, kind="changed", old_mode=was[0], new_mode=now[0]), b"")
                continue
            if was is not None and not old_tree:
                self._add(PathChange(path=full, kind="removed", old_mode=was[0]), was[1])
            if now is not None and not new_tree:
                self._add(PathChange(path=full, kind="added", new_mode=now[0]), now[1])
            if old_tree or new_tree:
                self.trees(old_tree, new_tree, full, depth + 1)

    def _add(self, change: PathChange, oid: bytes) -> None:
        if sum(self.counts.values()) >= self._most:
            self.complete = False
            raise _Full
        self.counts[change.kind] += 1
        if len(self.paths) < self._kept:
            self.paths.append((change, oid))

    def result(self) -> TreeChanges:
        gone: dict[bytes, list[PathChange]] = {}
        for change, oid in reversed(self.paths):
            if change.kind == "removed":
                gone.setdefault(oid, []).append(change)
        taken: set[bytes] = set()
        paths: list[PathChange] = []
        for change, oid in self.paths:
            if change.kind == "added" and gone.get(oid):
                old = gone[oid].pop()
                taken.add(old.path)
                self.counts.subtract(("added", "removed"))
                self.counts["renamed"] += 1
                renamed = attrs.evolve(change, kind="renamed", old_path=old.path, old_mode=old.old_mode)
                paths.append(renamed)
            else:
                paths.append(change)
        left = tuple(p for p in paths if not (p.kind == "removed" and p.path in taken))
        return TreeChanges(paths=left, counts={k: n for k, n in self.counts.items() if n}, complete=self.complete)


def tree_changes(
    rows: Callable[[bytes], list[TreeRow]], old: bytes, new: bytes, *, kept: int, most: int
) -> TreeChanges:
    """Return what differs between two trees.

    Args:
        rows: returns the entries of a tree by its id (hex); may raise `TimeoutError` to stop early.
        old, new: ids of trees, in hex.
        kept: changes to list; a file replaced by a directory is removed, and what is in the directory added.
        most: changes to count.

    Raises:
        TreeError: a tree is missing or malformed.
    """
    comparer = _Comparer(rows, kept, most)
    try:
        comparer.trees(old, new, b"", 0)
    except _Full:
        pass  # `complete` is false already
    except TimeoutError:
        comparer.complete = False
    return comparer.result()


__all__ = ["ChangeKind", "PathChange", "TreeChanges", "TreeRow", "rows_of", "tree_changes"]
