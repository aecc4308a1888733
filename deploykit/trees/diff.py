"""What one tree has that another has not: only the parts that differ are read, and they are checked on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from deploykit.trees.entries import DIRECTORY, Directory, Entry, TreeWalk
from deploykit.trees.objects import ObjectReader
from deploykit.trees.rules import TreeRules

if TYPE_CHECKING:
    from dulwich.object_store import BaseObjectStore

    from deploykit.names import ObjectId


@attrs.frozen(kw_only=True, slots=True)
class TreeDiff:
    """The way from one tree to another.

    Args:
        removed: files and links that go, or give way to a directory.
        removed_directories: directories that go with all they hold, or give way to a file.
        changed: files and links that stay by name, with their new content or mode.
        added: new files and links.
        added_directories: new directories, parents first.
    """

    removed: tuple[bytes, ...]
    removed_directories: tuple[bytes, ...]
    changed: tuple[Entry, ...]
    added: tuple[Entry, ...]
    added_directories: tuple[bytes, ...]

    def __bool__(self) -> bool:
        return bool(self.removed or self.removed_directories or self.changed or self.added or self.added_directories)


class _Collected:
    def __init__(self) -> None:
        self.removed: list[bytes] = []
        self.removed_directories: list[bytes] = []
        self.changed: list[Entry] = []
        self.added: list[Entry] = []
        self.added_directories: list[bytes] = []


def diff_trees(reader: ObjectReader, old: ObjectId, new: ObjectId, rules: TreeRules) -> TreeDiff:
    """Compare two trees.

    Raises:
        TreeError: what is new breaks a rule, or an object of either is missing.
    """
    walk = TreeWalk(reader, rules)
    found = _Collected()
    _diff(walk, walk.root(old), walk.root(new), b"", 0, found)
    return TreeDiff(
        removed=tuple(found.removed),
        removed_directories=tuple(found.removed_directories),
        changed=tuple(found.changed),
        added=tuple(found.added),
        added_directories=tuple(found.added_directories),
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
                found.added.append(Entry(full, mode, sha))
            elif was[0] == DIRECTORY:
                found.removed_directories.append(full)
                found.added.append(Entry(full, mode, sha))
            else:
                found.changed.append(Entry(full, mode, sha))
    for name, (mode, _) in before.items():
        (found.removed_directories if mode == DIRECTORY else found.removed).append(prefix + name)


def _add_directory(directory: Directory, found: _Collected) -> None:
    found.added_directories.append(directory.path)
    found.added += directory.entries


def list_changes(store: BaseObjectStore, old: ObjectId, new: ObjectId, rules: TreeRules) -> TreeDiff:
    """Compare two trees of a store: see `diff_trees`."""
    with ObjectReader(store, max_bytes=rules.max_file_bytes) as reader:
        return diff_trees(reader, old, new, rules)
