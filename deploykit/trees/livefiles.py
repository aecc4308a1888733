"""The files of a directory that somebody else wrote: listed, compared with a commit's, made a manifest of."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import attrs

from deploykit.git.lfspointer import LfsPointer
from deploykit.git.objectformat import blob_id
from deploykit.git.objectreader import ObjectReader
from deploykit.trees.entries import GITLINK, SYMLINK, TreeWalk
from deploykit.trees.files import file_id, open_directory
from deploykit.trees.manifest import Manifest, ManifestRows
from deploykit.trees.rules import TreeRules
from deploykit.trees.writer import WriteOptions, check_links, contents_of, next_tick

if TYPE_CHECKING:
    from deploykit.names import ObjectId
    from deploykit.trees import ObjectStore

_SHA1: Final = 20

#: path -> mode and what is written there: the hex id of a file or symlink, a file's object of Git LFS, the id of a
#: submodule that is left empty.
Entries = Mapping[str, tuple[int, str | LfsPointer]]
#: path -> `lstat` of everything below a directory.
Listing = Mapping[str, os.stat_result]


@attrs.frozen(kw_only=True, slots=True)
class LiveFiles:
    """How a directory compares with a commit. Paths are relative and sorted.

    Args:
        count: its files and symlinks.
        modified, missing, added: what differs. A directory with nothing in it, which no commit can have, ends in `/`.
    """

    count: int = 0
    modified: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


def entries_written(store: ObjectStore, tree: ObjectId, rules: TreeRules, options: WriteOptions) -> Entries:
    """Return what `write_tree` would write, and write nothing.

    Raises:
        TreeError: what it would refuse.
    """
    found: dict[str, tuple[int, str | LfsPointer]] = {}
    with ObjectReader(store, max_bytes=rules.max_file_bytes) as reader:
        walked = TreeWalk(reader, rules)
        directories = list(walked.walk(walked.root(tree), b"", 0))
        contents = contents_of(reader, walked, rules, options, [e for d in directories for e in d.entries])
        entries = [e for d in contents.without_ignored(directories) for e in d.entries]
        check_links(reader, entries, rules, options.outside)
        for entry in entries:
            what: str | LfsPointer
            if entry.mode in (SYMLINK, GITLINK):
                what = entry.oid.decode()
            else:
                lfs = contents.lfs_file(entry)
                what = lfs.pointer if lfs is not None else contents.of(entry)[1].hex()
            found[os.fsdecode(entry.path)] = entry.mode, what
    return found


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
    oid_length = _oid_length(entries)
    hollow: set[str] = set()
    for path, seen, at, name in walk(fd):
        hollow.discard(path.rpartition("/")[0])
        if stat.S_ISDIR(seen.st_mode):
            if path in left and entries[path][0] == GITLINK:
                left.discard(path)
            else:
                hollow.add(path)
            continue
        count += 1
        if path not in left:
            added.append(path)
            continue
        left.discard(path)
        if stored_id(name, at, seen, oid_length, *entries[path]) is None:
            modified.append(path)
    added += [f"{path}/" for path in hollow if not any(known.startswith(f"{path}/") for known in entries)]
    return LiveFiles(
        count=count, modified=tuple(sorted(modified)), missing=tuple(sorted(left)), added=tuple(sorted(added))
    )


def manifest_of(fd: int, entries: Entries, tree: str) -> Manifest:
    """Return the manifest of a directory as it is; what is not as a commit has it has no id."""
    oid_length = _oid_length(entries)
    rows = ManifestRows(oid_length)
    for path, seen, at, name in walk(fd):
        if stat.S_ISDIR(seen.st_mode):
            rows.directories.add(path)
        elif path in entries and (oid := stored_id(name, at, seen, oid_length, *entries[path])) is not None:
            rows.add(path, entries[path][0], seen, oid)
        else:
            rows.add(path, stat.S_IFMT(seen.st_mode), seen, bytes(oid_length))
    return rows.finish(tree=tree, fingerprint="adopted", device=os.fstat(fd).st_dev, taken_ns=next_tick())


def listing(fd: int) -> Listing:
    """Return what is below an open directory now."""
    return {path: seen for path, seen, _, _ in walk(fd)}


def changed_since(before: Listing, now: Listing) -> tuple[str, ...]:
    """Return the paths of a listing that an earlier one does not have, or has from another time, size or kind.

    A symlink counts as the same where there is a symlink.
    """
    return tuple(path for path, seen in now.items() if not _alike(seen, before.get(path)))


def _alike(one: os.stat_result, other: os.stat_result | None) -> bool:
    if other is None or stat.S_IFMT(one.st_mode) != stat.S_IFMT(other.st_mode):
        return False
    return not stat.S_ISREG(one.st_mode) or (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def _oid_length(entries: Entries) -> int:
    """Return the bytes of a git id of the repository."""
    return next((len(what) // 2 for _, what in entries.values() if isinstance(what, str)), _SHA1)


def stored_id(
    name: str, at: int, seen: os.stat_result, oid_length: int, mode: int, what: str | LfsPointer
) -> bytes | None:
    """Return the git id (binary, of that many bytes) of a file or symlink on disk that is what a tree's entry says.

    None for another one, and where it is gone by now.
    """
    try:
        return _stored_id(name, at, seen, oid_length, mode, what)
    except FileNotFoundError:
        return None


def _stored_id(
    name: str, at: int, seen: os.stat_result, oid_length: int, mode: int, what: str | LfsPointer
) -> bytes | None:
    is_link = stat.S_ISLNK(mode)
    if stat.S_IFMT(seen.st_mode) != stat.S_IFMT(mode) or not (is_link or (seen.st_mode ^ mode) & 0o100 == 0):
        return None
    if isinstance(what, LfsPointer):
        if seen.st_size != what.size:
            return None
        digest = hashlib.sha256()
        oid = file_id(name, at, oid_length, digest.update)
        return oid if digest.hexdigest() == what.oid else None
    wanted = bytes.fromhex(what)
    text = os.fsencode(os.readlink(name, dir_fd=at)) if is_link else b""
    oid = blob_id(text, len(wanted)) if is_link else file_id(name, at, len(wanted))
    return oid if oid == wanted else None
