"""A git tree written as files, once, into a directory that did not exist before.

Rules:

* The list is validated whole before the first write (`entries`).
* Every file is created with its final mode, never overwritten, by descriptors that follow no symlink (`files`).
* When `write_tree` returns with `durable`, all of it survives a power cut.
* On any error the caller removes the target: nothing outside it was touched.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import attrs

from deploykit.errors import TreeError
from deploykit.git.objectformat import BLOB
from deploykit.git.objectreader import ObjectReader
from deploykit.system.durable import sync_directory, sync_filesystem
from deploykit.trees.content import FileContents, attributes_of
from deploykit.trees.entries import EXECUTABLE, FILE, SYMLINK, TreeDirectory, TreeEntry, TreeWalk
from deploykit.trees.files import OpenDirectories, Owner, make_directory, open_directory, put_file, put_symlink
from deploykit.trees.graft import Mount
from deploykit.trees.lfs import LfsContent, LfsPlaces
from deploykit.trees.links import leaves_tree
from deploykit.trees.manifest import Manifest, ManifestRows
from deploykit.trees.names import shown
from deploykit.trees.rules import TreeRules
from deploykit.trees.subst import Substitution

if TYPE_CHECKING:
    from dulwich.object_store import BaseObjectStore

    from deploykit.names import ObjectId

_MAX_TARGET: Final = 4095
#: As os.fsdecode does it, without asking each time.
_FS_ENCODING: Final = sys.getfilesystemencoding()
_FS_ERRORS: Final = sys.getfilesystemencodeerrors()
#: git's mode -> ours, before the umask.
_FILES: Final = {FILE: 0o666, EXECUTABLE: 0o777}

Progress = Callable[[int, int], None]


@attrs.frozen(kw_only=True, slots=True)
class WriteOptions:
    """How to write a tree, besides its rules.

    Args:
        durable: return only when all of it survives a power cut.
        owner: (uid, gid) for everything written; None leaves the process's own.
        outside: paths that will become links to shared directories.
        fingerprint: of the rules, kept in the manifest; a tree is patched only under the same one.
        commit: the one that `export-subst` describes.
        mounts: other repositories in the tree; each has attributes and a commit of its own.
        lfs: the objects of Git LFS; in a repository without, a pointer is refused or stays, as the rules say.
        tick: wait for the file system's clock to move on, so that `lstat` alone can prove every row; without, every
            file will be read. Only a caller that goes on writing and retakes the manifest leaves it out.
        progress: called with (files done, files in all) now and then.
    """

    durable: bool = True
    owner: Owner | None = None
    outside: frozenset[bytes] = frozenset()
    fingerprint: str = ""
    commit: str = ""
    mounts: tuple[Mount, ...] = ()
    lfs: LfsPlaces = MappingProxyType({})
    tick: bool = True
    progress: Progress | None = None


def write_tree(
    store: BaseObjectStore,
    tree: ObjectId,
    target: Path,
    rules: TreeRules | None = None,
    options: WriteOptions | None = None,
) -> Manifest:
    """Write `tree` into the new directory `target` and return its manifest.

    Raises:
        TreeError: an entry must not be written, or an object is missing or damaged.
        OSError: the file system refused (no space, no inodes, read-only, an I/O error).
    """
    rules = rules or TreeRules()
    options = options or WriteOptions()
    with ObjectReader(store, max_bytes=rules.max_file_bytes) as reader:
        walk = TreeWalk(reader, rules)
        directories = list(walk.walk(walk.root(tree), b"", 0))
        contents = contents_of(reader, walk, rules, options, [e for d in directories for e in d.entries])
        directories = contents.without_ignored(directories)
        links = check_links(reader, (e for d in directories for e in d.entries), rules, options.outside)
        parent = open_directory(target.parent)
        try:
            root = make_directory(target.name, parent, umask=rules.umask, owner=options.owner)
            try:
                rows = ManifestRows(reader.oid_length)
                EntryWriter(contents, root, rules, options, links, rows).write_directories(directories)
                if options.durable:
                    sync_filesystem(root)
                    sync_directory(parent)
                return rows.finish(
                    tree=str(tree),
                    fingerprint=options.fingerprint,
                    device=os.fstat(root).st_dev,
                    taken_ns=next_tick() if options.tick else 0,
                )
            finally:
                os.close(root)
        finally:
            os.close(parent)


def contents_of(
    reader: ObjectReader, walk: TreeWalk, rules: TreeRules, options: WriteOptions, entries: list[TreeEntry]
) -> FileContents:
    """Return the contents of a tree's files, by its attributes."""
    commits = {b"": options.commit} | {mount.path: mount.commit for mount in options.mounts}
    substitutions = {
        root: Substitution(reader.store, commit)
        for root, commit in commits.items()
        if rules.export_attributes and commit
    }
    attributes = attributes_of(reader, walk, entries, frozenset(commits))
    return FileContents(reader, rules, attributes, walk, substitutions, options.lfs)


def check_links(
    reader: ObjectReader, entries: Iterable[TreeEntry], rules: TreeRules, outside: frozenset[bytes]
) -> dict[bytes, bytes]:
    """Return every link's target, after applying the symlink policy.

    Raises:
        TreeError: a link without a target, or one that leaves the tree.
    """
    links: dict[bytes, bytes] = {}
    for entry in entries:
        if entry.mode != SYMLINK:
            continue
        target = reader.read(entry.oid, BLOB)
        if not target or b"\0" in target or len(target) > _MAX_TARGET:
            raise TreeError(f"the symlink {shown(entry.path)} has no usable target", "correct it in the repository")
        links[entry.path] = target
    if rules.symlinks == "inside":
        for path, target in links.items():
            if leaves_tree(path, links, outside):
                raise TreeError(
                    f"the symlink {shown(path)} -> {shown(target)} leads out of the tree",
                    'remove it from the repository, or set symlinks = "any"',
                )
    return links


class EntryWriter:
    """Writes entries below one open directory and collects their rows."""

    def __init__(
        self,
        contents: FileContents,
        root: int,
        rules: TreeRules,
        options: WriteOptions,
        links: dict[bytes, bytes],
        rows: ManifestRows,
    ) -> None:
        self._contents = contents
        self._root = root
        self._rules = rules
        self._options = options
        self._links = links
        self._rows = rows

    def make_directories(self, paths: Iterable[str]) -> None:
        """Make directories, parents first."""
        with OpenDirectories(self._root) as opened:
            for path in paths:
                opened.open(path, create=True, umask=self._rules.umask, owner=self._options.owner)
                self._rows.directories.add(path)

    def write_directories(self, directories: list[TreeDirectory]) -> None:
        """Write whole directories, parents first."""
        total = sum(len(d.entries) for d in directories)
        done = 0
        with OpenDirectories(self._root) as opened:
            for directory in directories:
                where = os.fsdecode(directory.path)
                fd = opened.open(where, create=True, umask=self._rules.umask, owner=self._options.owner)
                if where:
                    self._rows.directories.add(where)
                self._write(directory.entries, where, fd)
                done += len(directory.entries)
                if self._options.progress is not None:
                    self._options.progress(done, total)

    def write(self, entries: Iterable[TreeEntry]) -> None:
        """Write single entries into directories that exist."""
        with OpenDirectories(self._root) as opened:
            for entry in entries:
                where = os.fsdecode(entry.path.rpartition(b"/")[0])
                self._write((entry,), where, opened.open(where))

    def _write(self, entries: Iterable[TreeEntry], where: str, fd: int) -> None:
        """Write the entries directly in one open directory. A fresh export spends its time here."""
        umask, owner = self._rules.umask, self._options.owner
        content_of, add, decode = self._contents.of, self._rows.add, bytes.decode
        start = len(where) + 1 if where else 0
        for entry in entries:
            path = decode(entry.path, _FS_ENCODING, _FS_ERRORS)
            name = path[start:]
            mode = entry.mode
            try:
                if mode in _FILES:
                    content, oid = content_of(entry)
                    seen = put_file(name, fd, content, mode=_FILES[mode], umask=umask, owner=owner)
                    if isinstance(content, LfsContent):
                        oid = content.oid
                elif mode == SYMLINK:
                    oid = bytes.fromhex(entry.oid.decode())
                    seen = put_symlink(name, fd, self._links[entry.path], owner=owner)
                else:
                    os.close(make_directory(name, fd, umask=umask, owner=owner))
                    self._rows.directories.add(path)
                    continue
            except FileExistsError as error:
                raise TreeError(
                    f"{shown(entry.path)} collides with another name on this file system",
                    "rename one of the two; this file system does not tell them apart",
                ) from error
            add(path, mode, seen, oid)


def next_tick() -> int:
    """Wait until the clock that stamps files moves on (at most a few milliseconds), and return it.

    A later change gets a later stamp than everything written before, so `lstat` cannot miss it.
    """
    start = this_tick()
    while (now := this_tick()) <= start:
        time.sleep(0.0005)
    return now


def this_tick() -> int:
    """Return the clock that stamps files, in nanoseconds. `lstat` cannot prove a file written at this tick."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_REALTIME_COARSE", time.CLOCK_REALTIME))
