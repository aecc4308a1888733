"""Compare a directory with its manifest: one `lstat` per file, and only files that look different are read.

A file is unchanged when mode, size, mtime, ctime and inode are, and its ctime lies before the manifest was taken. Any
other file is read and hashed: a restored backup or a `touch` is no difference, an edit with the old mtime is one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Final

import attrs

from deploykit.git.objectformat import blob_id
from deploykit.trees.files import file_id, open_directory
from deploykit.trees.manifest import CTIME, INODE, INODE_MASK, MODE, MTIME, PERM, SIZE, WIDTH, Manifest, ManifestRows

#: The columns of a row, in its order. An inode number above the column's range does not match, so the file is read.
_NOW: Final = attrgetter("st_mode", "st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")
_SECOND: Final = 1_000_000_000


@attrs.frozen(kw_only=True, slots=True)
class Differences:
    """How a directory differs from its manifest. Paths are relative.

    Args:
        modified: content, mode or kind changed.
        missing: files and links that are gone.
        added: files and links without a row.
        added_directories: directories that no row needs; their content is not listed.
        touched: rows whose files were read and are unchanged, with their new `lstat` (index, stat).
        directories: those of the manifest that are there, with their `fstat`; the root's path is empty.
    """

    modified: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    added_directories: tuple[str, ...] = ()
    touched: tuple[tuple[int, os.stat_result], ...] = attrs.field(default=(), repr=False)
    directories: tuple[tuple[str, os.stat_result], ...] = attrs.field(default=(), repr=False)

    def __bool__(self) -> bool:
        return bool(self.modified or self.missing or self.added or self.added_directories)

    def lines(self) -> list[str]:
        """Return one line for each difference, sorted by path."""
        found = [(p, "modified") for p in self.modified]
        found += [(p, "missing") for p in self.missing]
        found += [(p, "added") for p in self.added]
        found += [(p + "/", "added") for p in self.added_directories]
        return [f"{what} {path}" for path, what in sorted(found)]


def compare(
    manifest: Manifest, root: Path | int, *, paranoid: bool = False, tick: Callable[[], None] = lambda: None
) -> Differences:
    """Return how the directory `root` (a path or a descriptor) differs from its manifest.

    Args:
        paranoid: read and hash every file.
        tick: called for each directory, and before each file that is read; may raise to stop.

    Raises:
        OSError: the directory cannot be read.
    """
    fd = open_directory(root) if isinstance(root, Path) else os.dup(root)
    try:
        scan = _Scan(manifest, paranoid, tick)
        scan.directory("", fd)
        return scan.result()
    finally:
        os.close(fd)


class _Scan:
    def __init__(self, manifest: Manifest, paranoid: bool, tick: Callable[[], None]) -> None:
        self._manifest = manifest
        self._tick = tick
        n = manifest.numbers
        # One tuple for each row, built and compared in C: this loop is what a deploy of a few files costs.
        seen = zip(n[PERM::WIDTH], n[SIZE::WIDTH], n[MTIME::WIDTH], n[CTIME::WIDTH], n[INODE::WIDTH], strict=True)
        self._left = dict(zip(manifest.paths, seen, strict=True))
        # A file system that keeps whole seconds: what was changed in the rest of that second may look the same.
        whole = all(stamp % _SECOND == 0 for stamp in n[CTIME::WIDTH])
        taken = manifest.taken_ns - manifest.taken_ns % _SECOND if whole else manifest.taken_ns
        self._taken = 0 if paranoid else taken
        self._modified: list[str] = []
        self._added: list[str] = []
        self._added_directories: list[str] = []
        self._touched: list[tuple[int, os.stat_result]] = []
        self._directories: list[tuple[str, os.stat_result]] = []

    def directory(self, where: str, fd: int) -> None:
        """Compare one directory and what is below it."""
        self._tick()
        self._directories.append((where, os.fstat(fd)))
        prefix = where + "/" if where else ""
        known = self._manifest.directories
        taken, take, now = self._taken, self._left.pop, _NOW
        below: list[tuple[str, str]] = []
        doubtful: list[tuple[str, str, os.stat_result]] = []
        with os.scandir(fd) as found:
            for entry in found:
                path = prefix + entry.name
                row = take(path, None)
                if row is not None:
                    seen = entry.stat(follow_symlinks=False)
                    if now(seen) == row and seen.st_ctime_ns < taken:
                        continue
                    if not stat.S_ISDIR(seen.st_mode):
                        doubtful.append((path, entry.name, seen))
                        continue
                    self._left[path] = row  # a directory stands in its place
                if not entry.is_dir(follow_symlinks=False):
                    self._added.append(path)
                elif path in known:
                    below.append((path, entry.name))
                else:
                    self._added_directories.append(path)
        for path, name, seen in doubtful:
            self._look(path, name, seen, fd)
        for path, name in below:
            child = open_directory(name, fd)
            try:
                self.directory(path, child)
            finally:
                os.close(child)

    def _look(self, path: str, name: str, seen: os.stat_result, fd: int) -> None:
        """Compare the content of a file whose `lstat` differs from its row."""
        at = self._index[path]
        row = at * WIDTH
        numbers = self._manifest.numbers
        if numbers[row + PERM] != seen.st_mode or numbers[row + SIZE] != seen.st_size:
            self._modified.append(path)
            return
        size = self._manifest.oid_length
        wanted = self._manifest.oids[at * size : (at + 1) * size]
        if not any(wanted):  # never hashed: only `lstat` can be compared
            same = numbers[row + MTIME] == seen.st_mtime_ns and numbers[row + INODE] == seen.st_ino & INODE_MASK
            if not same:
                self._modified.append(path)
            return
        if stat.S_ISLNK(seen.st_mode):
            found = blob_id(os.fsencode(os.readlink(name, dir_fd=fd)), size)
        elif stat.S_ISREG(seen.st_mode):
            self._tick()
            found = file_id(name, fd, size)
        else:
            return  # a pipe or a device, by the same mode as before
        if found == wanted:
            self._touched.append((at, seen))
        else:
            self._modified.append(path)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {path: at for at, path in enumerate(self._manifest.paths)}

    def result(self) -> Differences:
        """Return the differences found."""
        return Differences(
            modified=tuple(self._modified),
            missing=tuple(self._left),
            added=tuple(self._added),
            added_directories=tuple(self._added_directories),
            touched=tuple(self._touched),
            directories=tuple(self._directories),
        )


def retake_manifest(manifest: Manifest, root: Path, taken_ns: int) -> Manifest:
    """Return a new manifest of a directory in which scripts have run: every file as it is now.

    Unchanged rows keep their id. Files that scripts changed or added have no id, only their `lstat`.
    """
    fd = open_directory(root)
    try:
        found = compare(manifest, fd)
        drop = {at for at, _ in found.touched}
        paths = {path: at for at, path in enumerate(manifest.paths)}
        drop |= {paths[p] for p in (*found.modified, *found.missing)}
        rows = ManifestRows.without(manifest, drop)
        size = manifest.oid_length
        for at, seen in found.touched:
            mode = manifest.numbers[at * WIDTH + MODE]
            rows.add(manifest.paths[at], mode, seen, manifest.oids[at * size : (at + 1) * size])
        unknown = bytes(size)
        for path in (*found.modified, *found.added):
            seen = os.stat(path, dir_fd=fd, follow_symlinks=False)
            rows.add(path, stat.S_IFMT(seen.st_mode), seen, unknown)
        for path in found.added_directories:
            _add_all(rows, path, fd, unknown)
    finally:
        os.close(fd)
    return rows.finish(tree=manifest.tree, fingerprint=manifest.fingerprint, device=manifest.device, taken_ns=taken_ns)


def _add_all(rows: ManifestRows, path: str, fd: int, unknown: bytes) -> None:
    rows.directories.add(path)
    child = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    try:
        with os.scandir(child) as found:
            for entry in found:
                full = f"{path}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    _add_all(rows, full, fd, unknown)
                else:
                    seen = entry.stat(follow_symlinks=False)
                    rows.add(full, stat.S_IFMT(seen.st_mode), seen, unknown)
    finally:
        os.close(child)
