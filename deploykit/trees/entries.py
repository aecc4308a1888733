"""A git tree as a list of files: validated whole, before one byte is written.

Rules:

* Every name passes `names.name_problem`; no two entries of a directory share a name.
* Modes are git's own; others are refused, and setuid and other odd bits are dropped.
* Entries, depth and path length are capped while the tree is walked, so that a tree bomb ends at the cap.
* A submodule is refused or left out, as the settings ask, never entered.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterator, Set
from typing import TYPE_CHECKING, Final, NamedTuple

from dulwich.errors import ObjectFormatException
from dulwich.objects import parse_tree

from deploykit.errors import TreeError
from deploykit.git.objectformat import TREE
from deploykit.git.objectreader import ObjectReader
from deploykit.trees.names import PLAIN, name_problem, shown
from deploykit.trees.rules import TreeRules

if TYPE_CHECKING:
    from dulwich.object_store import BaseObjectStore

    from deploykit.names import ObjectId

FILE: Final = 0o100644
EXECUTABLE: Final = 0o100755
SYMLINK: Final = 0o120000
GITLINK: Final = 0o160000
DIRECTORY: Final = 0o040000

_SLASH: Final = ord("/")
_MAX_PATH: Final = 4000  # PATH_MAX is 4096 with the site's own path before it
_MAX_TREE_BYTES: Final = 64 * 1024 * 1024
_KEPT_TREES: Final = 4096
_ATTRIBUTES: Final = (b".gitattributes", FILE)
_FILES: Final = frozenset({FILE, EXECUTABLE})
_MODES: Final = frozenset({FILE, EXECUTABLE, SYMLINK, GITLINK, DIRECTORY})


def parsed_tree(reader: ObjectReader, oid: bytes, path: bytes) -> list[tuple[bytes, int, bytes]]:
    """Return the (name, mode, hex id) of each entry of a tree, as they are stored; `path` is for the error text.

    Raises:
        TreeError: it is missing, damaged or malformed.
    """
    raw = reader.read(oid, TREE)
    try:
        return list(parse_tree(raw, reader.oid_length, strict=False))
    except (ObjectFormatException, ValueError) as error:
        raise TreeError(
            f"tree {oid.decode()} ({shown(path) or 'the root'}) is malformed: {error}", "check the repository"
        ) from error


class TreeEntry(NamedTuple):
    """One file, link or submodule. A tuple, because a tree has one for each of perhaps 50,000 files.

    `path` is relative and as stored, `mode` one of FILE, EXECUTABLE, SYMLINK, GITLINK, `oid` hex.
    """

    path: bytes
    mode: int
    oid: bytes


class TreeDirectory(NamedTuple):
    """One directory: its path (empty for the root) and what lies directly in it, without directories."""

    path: bytes
    entries: list[TreeEntry]


class TreeWalk:
    """Walks trees of one store under one set of rules. Counts entries; parses each tree once."""

    def __init__(self, reader: ObjectReader, rules: TreeRules) -> None:
        self._reader = reader
        self._rules = rules
        self._parsed: dict[bytes, list[tuple[bytes, int, bytes]]] = {}
        self._count = 0
        self._prefix = b""
        #: (directory, id) of each `.gitattributes` above the root of the walk, filled by `root`.
        self.attributes_above: list[tuple[bytes, bytes]] = []

    def tree(self, oid: bytes, path: bytes) -> list[tuple[bytes, int, bytes]]:
        """Return the checked (name, mode, oid) of one tree."""
        known = self._parsed.get(oid)
        if known is not None:
            self._charge(len(known), path)
            return known
        rows = parsed_tree(self._reader, oid, path)
        self._charge(len(rows), path)
        plain = PLAIN.match
        checked = [
            row if row[1] in _MODES and plain(row[0]) else (row[0], _mode(row[0], row[1], path), row[2]) for row in rows
        ]
        if len({row[0] for row in checked}) != len(checked):
            raise TreeError(
                f"tree {oid.decode()} ({shown(path) or 'the root'}) holds one name twice", "check the repository"
            )
        if len(self._parsed) < _KEPT_TREES:
            self._parsed[oid] = checked
        return checked

    def _charge(self, rows: int, path: bytes) -> None:
        self._count += rows
        if self._count > self._rules.max_entries:
            raise TreeError(
                f"the tree holds more than {self._rules.max_entries} entries (stopped in {shown(path) or 'the root'})",
                "raise max_entries if the repository is to be trusted",
            )

    def walk(self, oid: bytes, path: bytes, depth: int) -> Iterator[TreeDirectory]:
        """Yield the directories, parents first."""
        if depth > self._rules.max_depth:
            raise TreeError(
                f"{shown(path)} lies {depth} directories deep; {self._rules.max_depth} are allowed",
                "raise max_depth if the repository is to be trusted",
            )
        prefix = path + b"/" if path else b""
        entries: list[TreeEntry] = []
        below: list[tuple[bytes, bytes]] = []
        for name, mode, sha in self.tree(oid, path):
            full = prefix + name
            if len(full) > _MAX_PATH:
                raise TreeError(f"the path {shown(full)} has {len(full)} bytes; {_MAX_PATH} are allowed")
            if mode == DIRECTORY:
                below.append((full, sha))
                continue
            if mode not in _FILES:
                self.check_entry(full, mode)
            entries.append(TreeEntry(full, mode, sha))
        yield TreeDirectory(path, entries)
        for full, sha in below:
            yield from self.walk(sha, full, depth + 1)

    def entries_at(self, oid: bytes, paths: Collection[bytes]) -> Iterator[TreeEntry]:
        """Yield the files, links and submodules at some paths; nothing where there is none."""
        above = {path[:at] for path in paths for at, byte in enumerate(path) if byte == _SLASH}
        return self._entries_at(oid, b"", frozenset(paths), above)

    def _entries_at(self, oid: bytes, path: bytes, paths: Set[bytes], above: Set[bytes]) -> Iterator[TreeEntry]:
        prefix = path + b"/" if path else b""
        for name, mode, sha in self.tree(oid, path):
            full = prefix + name
            if mode == DIRECTORY and full in above:
                yield from self._entries_at(sha, full, paths, above)
            elif mode != DIRECTORY and full in paths:
                yield TreeEntry(full, mode, sha)

    def check_entry(self, full: bytes, mode: int) -> None:
        """Apply the policies for links and submodules to one entry."""
        if mode == GITLINK and self._rules.submodules == "refuse":
            raise TreeError(
                f"{shown(full)} is a submodule, and submodules are not followed",
                'set submodules = "mirror" to write them, or "skip" to leave an empty directory in its place',
            )
        if mode == GITLINK and self._rules.submodules == "mirror":
            raise TreeError(
                f"{shown(full)} is a submodule without an entry in .gitmodules, or its mirrors are not given",
                "add it there (git submodule add), and give the mirror of its repository",
            )
        if mode == SYMLINK and self._rules.symlinks == "refuse":
            raise TreeError(f"{shown(full)} is a symlink, and the settings allow none", 'set symlinks = "inside"')

    def root(self, tree: ObjectId) -> bytes:
        """Return the id of the root that the rules choose: `tree` itself, or its subdirectory."""
        root = tree.encode()
        here = b""
        self.attributes_above = []
        for part in [p for p in self._rules.subdirectory.encode().split(b"/") if p]:
            rows = self.tree(root, here)
            self.attributes_above += [(here, sha) for name, mode, sha in rows if (name, mode) == _ATTRIBUTES]
            for name, mode, sha in rows:
                if name == part and mode == DIRECTORY:
                    root = sha
                    break
            else:
                raise TreeError(
                    f"the tree has no directory {self._rules.subdirectory}", "correct the site's subdirectory"
                )
            here = here + b"/" + part if here else part
        self._prefix = here + b"/" if here else b""
        return root

    def full_path(self, path: bytes) -> bytes:
        """Return a path of the walk relative to the repository's own root."""
        return self._prefix + path


def _mode(name: bytes, mode: int, path: bytes) -> int:
    why = name_problem(name)
    full = path + b"/" + name if path else name
    if why is not None:
        raise TreeError(f"refused the file name {shown(full)}: {why}", "remove it from the repository")
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFREG:
        return EXECUTABLE if mode & 0o100 else FILE
    if kind in (DIRECTORY, SYMLINK, GITLINK):
        return kind
    raise TreeError(f"{shown(full)} has mode {mode:o}, which git does not use", "check the repository")


def walk_tree(reader: ObjectReader, tree: ObjectId, rules: TreeRules | None = None) -> Iterator[TreeDirectory]:
    """Yield each directory of `tree` with its entries, parents first, everything checked.

    Raises:
        TreeError: a name, mode or limit; the text names the path.
    """
    rules = rules or TreeRules()
    walk = TreeWalk(reader, rules)
    return walk.walk(walk.root(tree), b"", 0)


def list_tree(store: BaseObjectStore, tree: ObjectId, rules: TreeRules | None = None) -> Iterator[TreeEntry]:
    """Yield every file, link and submodule of `tree`, checked. See `walk_tree`."""
    rules = rules or TreeRules()
    with ObjectReader(store, max_bytes=_MAX_TREE_BYTES) as reader:
        for directory in walk_tree(reader, tree, rules):
            yield from directory.entries


def list_directory(store: BaseObjectStore, tree: ObjectId, path: str, rules: TreeRules) -> tuple[TreeEntry, ...]:
    """Return the entries directly in one directory of `tree`, directories included; empty where there is none."""
    with ObjectReader(store, max_bytes=_MAX_TREE_BYTES) as reader:
        walk = TreeWalk(reader, rules)
        here, at = walk.root(tree), b""
        for part in [p for p in path.encode().split(b"/") if p]:
            below = {name: sha for name, mode, sha in walk.tree(here, at) if mode == DIRECTORY}
            if part not in below:
                return ()
            here, at = below[part], at + b"/" + part if at else part
        prefix = at + b"/" if at else b""
        return tuple(TreeEntry(prefix + name, mode, sha) for name, mode, sha in walk.tree(here, at))
