"""The difference between two trees: only the parts that differ are read, and they are checked on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from deploykit.git.objectreader import ObjectReader
from deploykit.trees.entries import DIRECTORY, TreeDirectory, TreeEntry, TreeWalk
from deploykit.trees.rules import TreeRules

if TYPE_CHECKING:
    from dulwich.object_store import BaseObjectStore

    from deploykit.names import ObjectId


@attrs.frozen(kw_only=True, slots=True)
class TreeDiff:
    """The changes from one tree to another.

    Args:
        removed: files and links that are gone, or replaced by a directory.
        removed_directories: directories that are gone with all they hold, or replaced by a file.
        changed: files and links with new content or mode.
        added: new files and links.
        added_directories: new directories, parents first.
        attributes_above: `.gitattributes` above the subdirectory that is written changed.
    """

    removed: tuple[bytes, ...]
    removed_directories: tuple[bytes, ...]
    changed: tuple[TreeEntry, ...]
    added: tuple[TreeEntry, ...]
    added_directories: tuple[bytes, ...]
    attributes_above: bool = False

    @property
    def attributes(self) -> bool:
        """Whether attributes changed, so that unchanged files too may be written differently."""
        names = (*(e.path for e in (*self.changed, *self.added)), *self.removed)
        return self.attributes_above or any(n.rpartition(b"/")[2] == b".gitattributes" for n in names)

    def __bool__(self) -> bool:
        return bool(self.removed or self.removed_directories or self.changed or self.added or self.added_directories)


class _Collected:
    def __init__(self) -> None:
        self.removed: list[bytes] = []
        self.removed_directories: list[bytes] = []
        self.changed: list[TreeEntry] = []
        self.added: list[TreeEntry] = []
        self.added_directories: list[bytes] = []


def diff_trees(walk: TreeWalk, old: ObjectId, new: ObjectId) -> TreeDiff:
    """Return the changes from `old` to `new`.

    Raises:
        TreeError: a new entry breaks a rule, or an object of either is missing.
    """
    found = _Collected()
    before = walk.root(old)
    above = walk.attributes_above
    _diff(walk, before, walk.root(new), b"", 0, found)
    return TreeDiff(
        removed=tuple(found.removed),
        removed_directories=tuple(found.removed_directories),
        changed=tuple(found.changed),
        added=tuple(found.added),
        added_directories=tuple(found.added_directories),
        attributes_above=above != walk.attributes_above,
    )


def _diff(walk: TreeWalk, old: bytes, new: bytes, path: bytes, depth: int, found: _Collected) -> None:
    if old == new:
        return
    prefix = path + b"/" if path else b""
    before = {name: (mode, sha) for name, mode, sha in walk.tree(old, path)}
    for name, mode, sha in walk.tree(new, path):
        was = before.pop(name, None)
        if was == (mode, sha):
            continue
        full = prefix + name
        if mode == DIRECTORY:
            if was is not None and was[0] == DIRECTORY:
                _diff(walk, was[1], sha, full, depth + 1, found)
                continue
            if was is not None:
                found.removed.append(full)
            for directory in walk.walk(sha, full, depth + 1):
                _add_directory(directory, found)
        else:
            walk.check_entry(full, mode)
            if was is None:
                found.added.append(TreeEntry(full, mode, sha))
            elif was[0] == DIRECTORY:
                found.removed_directories.append(full)
                found.added.append(TreeEntry(full, mode, sha))
            else:
                found.changed.append(TreeEntry(full, mode, sha))
    for name, (mode, _) in before.items():
        (found.removed_directories if mode == DIRECTORY else found.removed).append(prefix + name)


def _add_directory(directory: TreeDirectory, found: _Collected) -> None:
    found.added_directories.append(directory.path)
    found.added += directory.entries


def list_changes(store: BaseObjectStore, old: ObjectId, new: ObjectId, rules: TreeRules) -> TreeDiff:
    """Return the changes between two trees of a store: see `diff_trees`."""
    with ObjectReader(store, max_bytes=rules.max_file_bytes) as reader:
        return diff_trees(TreeWalk(reader, rules), old, new)
