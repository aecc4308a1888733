"""The files of a directory that somebody else wrote: listed, compared with a commit's, made a manifest of."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from deploykit.git.lfspointer import LfsPointer
from deploykit.git.objectformat import blob_id
from deploykit.trees import Manifest
from deploykit.trees.files import file_id, open_directory
from deploykit.trees.manifest import ManifestRows
from deploykit.trees.writer import next_tick

_OID: Final = 20

#: path -> mode and hex id of each file and symlink of a commit, or what it has in Git LFS.
Entries = Mapping[str, tuple[int, str | LfsPointer]]


@attrs.frozen(kw_only=True, slots=True)
class LiveFiles:
    """How a directory compares with a commit. Paths are relative and sorted.

    Args:
        count: its files and symlinks.
        modified, missing, added: what differs.
    """

    count: int = 0
    modified: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


def walk(fd: int, where: str = "") -> Iterator[tuple[str, os.stat_result, int, str]]:
    """Yield path, `lstat`, directory and name of everything below an open directory, but for its `.git`.

    The directory is in use: what is gone when it is looked at is not there.
    """
    with os.scandir(fd) as found:
        names = sorted(e.name for e in found if where or e.name != ".git")
    for name in names:
        try:
            seen = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            continue
        path = f"{where}/{name}" if where else name
        yield path, seen, fd, name
        if stat.S_ISDIR(seen.st_mode):
            try:
                below = open_directory(name, fd)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                yield from walk(below, path)
            finally:
                os.close(below)


def compare_with(fd: int, entries: Entries) -> LiveFiles:
    """Read every file below an open directory, and compare it with a commit's."""
    left, modified, added, count = set(entries), [], [], 0
    for path, seen, at, name in walk(fd):
        if stat.S_ISDIR(seen.st_mode):
            continue
        count += 1
        if path not in left:
            added.append(path)
            continue
        left.discard(path)
        if stored_id(name, at, seen, *entries[path]) is None:
            modified.append(path)
    return LiveFiles(
        count=count, modified=tuple(sorted(modified)), missing=tuple(sorted(left)), added=tuple(sorted(added))
    )


def manifest_of(fd: int, entries: Entries, tree: str) -> Manifest:
    """Return the manifest of a directory as it is; what is not as a commit has it has no id."""
    rows = ManifestRows(_OID)
    for path, seen, at, name in walk(fd):
        if stat.S_ISDIR(seen.st_mode):
            rows.directories.add(path)
        elif path in entries and (oid := stored_id(name, at, seen, *entries[path])) is not None:
            rows.add(path, entries[path][0], seen, oid)
        else:
            rows.add(path, stat.S_IFMT(seen.st_mode), seen, bytes(_OID))
    return rows.finish(tree=tree, fingerprint="adopted", device=os.fstat(fd).st_dev, taken_ns=next_tick())


def only_in(fd: int, other: int) -> tuple[str, ...]:
    """Return the files below an open directory that another one does not have, or has from another time or size.

    A symlink counts as the same where there is a symlink.
    """
    known = {path: seen for path, seen, _, _ in walk(other)}
    return tuple(path for path, seen, _, _ in walk(fd) if not _alike(seen, known.get(path)))


def _alike(one: os.stat_result, other: os.stat_result | None) -> bool:
    if other is None or stat.S_IFMT(one.st_mode) != stat.S_IFMT(other.st_mode):
        return False
    return not stat.S_ISREG(one.st_mode) or (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def stored_id(name: str, at: int, seen: os.stat_result, mode: int, what: str | LfsPointer) -> bytes | None:
    """Return the git id (binary) of a file or symlink on disk that is what a tree's entry says.

    None for another one, and where it is gone by now.
    """
    try:
        return _stored_id(name, at, seen, mode, what)
    except FileNotFoundError:
        return None


def _stored_id(name: str, at: int, seen: os.stat_result, mode: int, what: str | LfsPointer) -> bytes | None:
    is_link = stat.S_ISLNK(mode)
    if stat.S_IFMT(seen.st_mode) != stat.S_IFMT(mode) or not (is_link or (seen.st_mode ^ mode) & 0o100 == 0):
        return None
    if isinstance(what, LfsPointer):
        if seen.st_size != what.size:
            return None
        digest = hashlib.sha256()
        oid = file_id(name, at, _OID, digest.update)
        return oid if digest.hexdigest() == what.oid else None
    wanted = bytes.fromhex(what)
    text = os.fsencode(os.readlink(name, dir_fd=at)) if is_link else b""
    oid = blob_id(text, len(wanted)) if is_link else file_id(name, at, len(wanted))
    return oid if oid == wanted else None
