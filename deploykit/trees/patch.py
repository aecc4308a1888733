"""Turn a directory we wrote into another tree: only what differs is written.

Rules:

* The directory is compared with its manifest first; only unchanged files stay as they are.
* Files that were edited, added, removed or chowned meanwhile are restored or removed. The result equals a fresh export:
  bytes, modes and owners.
* No file is written in place: a reader may still have the old one open.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from deploykit.errors import TreeError
from deploykit.git.objectformat import TREE
from deploykit.git.objectreader import ObjectReader
from deploykit.names import ObjectId
from deploykit.trees.diff import TreeDiff, diff_trees
from deploykit.trees.entries import GITLINK, SYMLINK, TreeEntry, TreeWalk
from deploykit.trees.files import OpenDirectories, make_directory, open_directory, remove_tree
from deploykit.trees.manifest import CTIME, INODE, INODE_MASK, MODE, MTIME, OURS, SIZE, WIDTH, Manifest, ManifestRows
from deploykit.trees.rules import TreeRules
from deploykit.trees.verify import Differences, compare
from deploykit.trees.writer import EntryWriter, WriteOptions, check_links, contents_of, next_tick

if TYPE_CHECKING:
    from dulwich.object_store import BaseObjectStore


_ATTRIBUTES: Final = ".gitattributes"


def _alike(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)


class CannotPatch(Exception):
    """The directory cannot be turned into the new tree; write it afresh. Nothing was changed yet."""


@attrs.frozen(kw_only=True, slots=True)
class PatchResult:
    """The result of a patch: the new manifest, and how many files were written, removed and repaired."""

    manifest: Manifest = attrs.field(repr=False)
    written: int
    removed: int
    repaired: int


def patch_tree(
    store: BaseObjectStore,
    tree: ObjectId,
    target: Path,
    manifest: Manifest,
    rules: TreeRules | None = None,
    options: WriteOptions | None = None,
    *,
    paranoid: bool = False,
) -> PatchResult:
    """Turn `target`, written earlier with `manifest`, into `tree`.

    Not durable yet: call `sync_filesystem` before it is activated.

    Args:
        paranoid: read every file that stays, instead of trusting `lstat`.

    Raises:
        CannotPatch: it must be written afresh (other rules, old tree no longer in the store, attributes changed).
        TreeError: the new tree holds what must not be written.
        OSError: the file system refused. The target is then half done: remove it.
    """
    rules = rules or TreeRules()
    options = options or WriteOptions()
    with ObjectReader(store, max_bytes=rules.max_file_bytes) as reader:
        walk = TreeWalk(reader, rules)
        diff = diff_to_patch(reader, walk, tree, manifest, rules, options)
        root = open_directory(target)
        try:
            if os.fstat(root).st_dev != manifest.device:
                raise CannotPatch("it lies on another file system than before")
            like = _new_directory(target, rules, options)
            patch = _Patch(reader, walk, tree, root, manifest, rules, options, diff)
            return patch.run(compare(manifest, root, paranoid=paranoid), like)
        finally:
            os.close(root)


def diff_to_patch(
    reader: ObjectReader, walk: TreeWalk, tree: ObjectId, manifest: Manifest, rules: TreeRules, options: WriteOptions
) -> TreeDiff:
    """Return what a patch has to change, by the trees alone.

    Raises:
        CannotPatch, TreeError: as for `patch_tree`.
    """
    if rules.export_attributes:
        raise CannotPatch("export attributes are honoured, and they make files that are in no tree")
    if manifest.fingerprint != options.fingerprint:
        raise CannotPatch("it was written by other rules")
    if manifest.oid_length != reader.oid_length:
        raise CannotPatch("it was written from a repository of another kind")
    try:
        reader.read(manifest.tree.encode(), TREE)
    except TreeError as error:
        raise CannotPatch(f"its own tree is not in the store: {error.problem}") from error
    diff = diff_trees(walk, ObjectId(manifest.tree), tree)
    if diff.attributes:
        raise CannotPatch("attributes changed")
    return diff


def attributes_kept(reader: ObjectReader, tree: ObjectId, manifest: Manifest, rules: TreeRules) -> list[TreeEntry]:
    """Return the `.gitattributes` of a tree that differs from a directory's, but not in these."""
    return _entries_at(reader, tree, rules, (p for p in manifest.paths if p.rpartition("/")[2] == _ATTRIBUTES))


def _entries_at(reader: ObjectReader, tree: ObjectId, rules: TreeRules, paths: Iterable[str]) -> list[TreeEntry]:
    """Return a tree's entries at some paths."""
    wanted = frozenset(os.fsencode(path) for path in paths)
    if not wanted:
        return []
    walk = TreeWalk(reader, rules)  # of its own: what it counts was counted before
    return list(walk.entries_at(walk.root(tree), wanted))


def _new_directory(beside: Path, rules: TreeRules, options: WriteOptions) -> os.stat_result:
    """Return the `fstat` of a directory made here now: the mode and the owners of a fresh export."""
    name = f".{beside.name}.like"
    parent = open_directory(beside.parent)
    try:
        remove_tree(name, parent)  # left by an interrupted run
        fd = make_directory(name, parent, umask=rules.umask, owner=options.owner)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)
            os.rmdir(name, dir_fd=parent)
    finally:
        os.close(parent)


class _Patch:
    def __init__(
        self,
        reader: ObjectReader,
        walk: TreeWalk,
        tree: ObjectId,
        root: int,
        manifest: Manifest,
        rules: TreeRules,
        options: WriteOptions,
        diff: TreeDiff,
    ) -> None:
        self._reader = reader
        self._walk = walk
        self._tree = tree
        self._root = root
        self._old = manifest
        self._rules = rules
        self._options = options
        self._diff = diff
        self._at = {path: at for at, path in enumerate(manifest.paths)}

    def run(self, found: Differences, like: os.stat_result) -> PatchResult:
        diff = self._diff
        ours_is = (like.st_uid, like.st_gid, 1)
        given_away = [self._old.paths[at] for at, s in found.touched if (s.st_uid, s.st_gid, s.st_nlink) != ours_is]
        found = attrs.evolve(found, modified=(*found.modified, *given_away))
        gone = {os.fsdecode(p) for p in diff.removed}
        write = {os.fsdecode(e.path): e for e in (*diff.changed, *diff.added)}
        empty = self._old.directories  # a submodule that is left out is an empty directory
        write = {p: e for p, e in write.items() if e.mode != GITLINK or p not in empty}
        gone_directories = [os.fsdecode(p) for p in diff.removed_directories]
        gone_directories += [p for p in (*gone, *write) if p in empty]
        below = tuple(d + "/" for d in gone_directories)
        modes = self._old.numbers[MODE::WIDTH]
        ours = {self._old.paths[at] for at, mode in enumerate(modes) if mode > OURS}
        broken = {
            path
            for path in (*found.modified, *found.missing)
            if path not in write and path not in gone and path not in ours and not (below and path.startswith(below))
        }
        # By the tree: an id in our rows is of what was written, not of what is stored.
        repair = _entries_at(self._reader, self._tree, self._rules, broken)
        if len(repair) != len(broken):
            raise CannotPatch("its manifest does not fit its tree")
        attributes = attributes_kept(self._reader, self._tree, self._old, self._rules)
        links = self._check_links(write)
        missing = set(found.missing)
        unlink = {p for p in (*gone, *ours, *write, *found.modified) if p in self._at and p not in missing}
        unlink |= set(found.added)
        drop = {self._at[p] for p in {*gone, *ours, *write, *found.modified, *found.missing} if p in self._at}
        if below:
            drop |= {at for p, at in self._at.items() if p.startswith(below)}
        rows = ManifestRows.without(self._old, drop)
        with OpenDirectories(self._root) as opened:
            for path in sorted(unlink):
                where, _, name = path.rpartition("/")
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=opened.open(where))
            for path in sorted({*gone_directories, *found.added_directories}):
                where, _, name = path.rpartition("/")
                with contextlib.suppress(FileNotFoundError):
                    remove_tree(name, opened.open(where))
        rows.directories = {
            d for d in rows.directories if d not in gone_directories and not (below and d.startswith(below))
        } - gone
        self._adopt(rows, found)
        self._restore_directories(found, rows.directories, like)
        lost = rows.directories.difference(path for path, _ in found.directories)
        contents = contents_of(self._reader, self._walk, self._rules, self._options, attributes)
        writer = EntryWriter(contents, self._root, self._rules, self._options, links, rows)
        writer.make_directories([*sorted(lost), *(os.fsdecode(d) for d in diff.added_directories)])
        writer.write(sorted([*write.values(), *repair]))
        self._check_caps(rows)
        done = rows.finish(
            tree=str(self._tree),
            fingerprint=self._old.fingerprint,
            device=self._old.device,
            taken_ns=next_tick() if self._options.tick else 0,
        )
        return PatchResult(manifest=done, written=len(write), removed=len(gone), repaired=len(repair))

    def _restore_directories(self, found: Differences, staying: set[str], like: os.stat_result) -> None:
        """Set the mode and owner of the directories that stay to those of new ones."""
        with OpenDirectories(self._root) as opened:
            for path, seen in found.directories:
                if (path and path not in staying) or _alike(seen, like):
                    continue
                fd = opened.open(path)
                if (seen.st_uid, seen.st_gid) != (like.st_uid, like.st_gid):
                    os.fchown(fd, like.st_uid, like.st_gid)
                os.fchmod(fd, stat.S_IMODE(like.st_mode))

    def _adopt(self, rows: ManifestRows, found: Differences) -> None:
        """Take over the new `lstat` of rows whose files were read and found unchanged."""
        if not found.touched:
            return
        place = {path: at for at, path in enumerate(rows.paths)}
        for old, seen in found.touched:
            at = place.get(self._old.paths[old])
            if at is None:
                continue
            rows.numbers[at * WIDTH + MTIME] = seen.st_mtime_ns
            rows.numbers[at * WIDTH + CTIME] = seen.st_ctime_ns
            rows.numbers[at * WIDTH + INODE] = seen.st_ino & INODE_MASK

    def _check_links(self, write: dict[str, TreeEntry]) -> dict[bytes, bytes]:
        """Apply the symlink policy to the tree as it will be: a new link can make an old one leave the tree."""
        if SYMLINK in set(self._old.numbers[MODE::WIDTH]):
            old = [r for r in self._old.rows() if r.mode == SYMLINK and not r.ours and r.path not in write]
        else:
            old = []
        gone = {os.fsdecode(p) for p in self._diff.removed}
        below = tuple(os.fsdecode(p) + "/" for p in self._diff.removed_directories)
        kept = [
            TreeEntry(os.fsencode(r.path), r.mode, r.oid.encode())
            for r in old
            if r.path not in gone and not (below and r.path.startswith(below))
        ]
        fresh = [e for e in write.values() if e.mode == SYMLINK]
        return check_links(self._reader, [*kept, *fresh], self._rules, self._options.outside)

    def _check_caps(self, rows: ManifestRows) -> None:
        total = sum(rows.numbers[SIZE::WIDTH])
        if total > self._rules.max_bytes or len(rows.paths) + len(rows.directories) > self._rules.max_entries:
            raise TreeError(
                "the tree is larger than allowed", "raise max_bytes or max_entries if the repository is to be trusted"
            )
