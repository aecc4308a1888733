"""The copies of one directory's tree, beside each other, of which one is live.

    HOME/a, b      copies, of which a symlink elsewhere shows one
    HOME/a.manifest, b.manifest

Rules:

* The live copy is never written to. A copy that was live before is the next one's start, when readers had time to
  leave it; only changed files are written then, and the copy is compared with its manifest first.
* A copy without a manifest was cut off while it was made, and is made afresh.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import TreeError
from deploykit.mirror.lfs.needs import check_lfs
from deploykit.names import ObjectId
from deploykit.system.durable import sync_directory, sync_filesystem
from deploykit.trees import (
    CannotPatch,
    Differences,
    Manifest,
    ObjectStore,
    TreeRules,
    WriteOptions,
    compare,
    patch_tree,
    write_tree,
)
from deploykit.trees.files import open_directory, remove_tree

_log = logging.getLogger(__name__)

SLOTS: Final = "abcdefgh"


@attrs.frozen(kw_only=True, slots=True)
class TreeCopies:
    """The copies below one directory.

    Args:
        home: that directory; made when needed.
        rules, options: how a tree is written.
    """

    home: Path
    rules: TreeRules
    options: WriteOptions

    def manifest(self, slot: str) -> Manifest | None:
        """Return the manifest of a copy; None where it has none."""
        try:
            return Manifest.load(self._manifest(slot))
        except TreeError:
            return None  # cut off before it was written: the copy is built afresh

    def compare(self, slot: str) -> Differences:
        """Return in what a copy differs from what was written.

        Raises:
            TreeError: its manifest cannot be read.
        """
        return compare(Manifest.load(self._manifest(slot)), self.home / slot)

    def build(
        self, store: ObjectStore, tree: ObjectId, live: str | None, *, rested: bool, durable: bool
    ) -> tuple[str, int, int]:
        """Write a tree beside the live copy; return its slot and how many files were written and removed.

        Args:
            live: the slot that is shown.
            rested: whether readers had time to leave the copy that was live before.
            durable: the copy has reached the disk.

        Raises:
            TreeError: the tree cannot be written.
            LfsMissing: objects of Git LFS are not there; nothing was written.
            OSError: the disk.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        slot, spare = self._next_slot(live, rested=rested)
        check_lfs(store, tree, self.rules, self.options, spare)
        manifest, written, removed = self._write(store, tree, self.home / slot, spare)
        manifest.save(self._manifest(slot), durable=False)
        if durable:
            fd = open_directory(self.home)
            try:
                sync_filesystem(fd)
            finally:
                os.close(fd)
        return slot, written, removed

    def _next_slot(self, live: str | None, *, rested: bool) -> tuple[str, Manifest | None]:
        """Return where to build: a spare copy that readers have had time to leave, or a new one. Surplus copies go."""
        there = [slot for slot in SLOTS if slot != live and (self.home / slot).exists()]
        if rested or len(there) >= len(SLOTS) - 2:
            for surplus in there[1:]:
                self._manifest(surplus).unlink(missing_ok=True)
                remove_entry(self.home / surplus)
            if there:
                return there[0], self.manifest(there[0])
        free = next(slot for slot in SLOTS if slot != live and slot not in there)
        return free, None

    def _write(
        self, store: ObjectStore, tree: ObjectId, target: Path, spare: Manifest | None
    ) -> tuple[Manifest, int, int]:
        if spare is not None:
            try:
                done = patch_tree(store, tree, target, spare, self.rules, self.options)
            except (CannotPatch, OSError) as why:
                _log.info("%s is written afresh: %s", target, why)
            else:
                return done.manifest, done.written, done.removed
        remove_entry(target)
        try:
            manifest = write_tree(store, tree, target, self.rules, attrs.evolve(self.options, durable=False))
        except BaseException:
            remove_entry(target)
            raise
        return manifest, len(manifest.paths), 0

    def _manifest(self, slot: str) -> Path:
        return self.home / f"{slot}.manifest"


def has_rested(made: float, grace: float) -> bool:
    """Return whether a symlink that was made then has been there for `grace` seconds, by a clock that may be set."""
    return abs(time.time() - made) >= grace


def remove_entry(path: Path) -> None:
    """Remove a directory with all below it, never through a symlink."""
    try:
        fd = open_directory(path.parent)
    except FileNotFoundError:
        return
    try:
        remove_tree(path.name, fd)
        sync_directory(fd)
    finally:
        os.close(fd)
