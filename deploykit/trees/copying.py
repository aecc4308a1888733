"""Copy a file or a directory to another file system, where a rename cannot move it.

Rules:

* No symlink is followed; a symlink is copied as one.
* It may be in use: what goes before it is copied is not in the copy, and a file that is written to meanwhile is newer
  than its copy.
* Content, mode, times and extended attributes are kept, and the owner where root copies. Hard links become files of
  their own.
* The copy gets its name when it is whole, and on the disk where that is asked for. What a crash left of an earlier one
  is removed first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from typing import Final

from deploykit.errors import TreeError
from deploykit.system.durable import sync_directory, sync_filesystem, write_all
from deploykit.trees.files import open_directory, put_symlink, remove_tree
from deploykit.trees.names import shown

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE: Final = 1 << 20
#: Directories inside directories; each holds two descriptors.
_DEEP: Final = 200


def copy_across(name: str, at: int, there: int, *, durable: bool, new: str = "") -> None:
    """Copy the entry `name` of one open directory into another, on another file system; the source stays.

    One writer at a time: the caller holds a lock.

    Args:
        at, there: the directories; `there` was opened before.
        durable: when it returns, a power cut takes nothing of the copy away.
        new: the copy's name, where it is not `name`.

    Raises:
        TreeError: it holds what is neither file, directory nor symlink, or is too deep.
        OSError: a file system refused. Nothing has the name, and what was copied is removed, now or by the next copy.
    """
    temporary = f".deploykit-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}.new"
    remove_tree(temporary, there)
    try:
        _copy(name, at, temporary, there, name, 0)
        if durable:
            sync_filesystem(there)
        os.rename(temporary, new or name, src_dir_fd=there, dst_dir_fd=there)
    except BaseException:
        with contextlib.suppress(OSError):  # what failed is raised; the next copy removes what is left
            remove_tree(temporary, there)
        raise
    if durable:
        sync_directory(there)


def _copy(name: str, at: int, new: str, there: int, path: str, depth: int) -> None:
    seen = os.stat(name, dir_fd=at, follow_symlinks=False)
    if stat.S_ISLNK(seen.st_mode):
        owner = (seen.st_uid, seen.st_gid) if os.geteuid() == 0 else None
        put_symlink(new, there, os.fsencode(os.readlink(name, dir_fd=at)), owner=owner)
        os.utime(new, ns=(seen.st_atime_ns, seen.st_mtime_ns), dir_fd=there, follow_symlinks=False)
    elif stat.S_ISDIR(seen.st_mode):
        if depth >= _DEEP:
            raise TreeError(f"{shown(os.fsencode(path))} lies more than {_DEEP} directories deep", "move it by hand")
        _copy_directory(name, at, new, there, path, depth)
    elif stat.S_ISREG(seen.st_mode):
        _copy_file(name, at, new, there)
    else:
        raise TreeError(
            f"{shown(os.fsencode(path))} is neither file, directory nor symlink: it cannot go to another file system",
            "make it there by hand, or let a script do so",
        )


def _copy_directory(name: str, at: int, new: str, there: int, path: str, depth: int) -> None:
    source = open_directory(name, at)
    try:
        os.mkdir(new, 0o700, dir_fd=there)
        target = open_directory(new, there)
        try:
            with os.scandir(source) as found:
                names = [entry.name for entry in found]
            for child in names:
                try:
                    _copy(child, source, child, target, f"{path}/{child}", depth + 1)
                except FileNotFoundError:
                    if _is_there(child, source):
                        raise
            _make_alike(source, os.fstat(source), target)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _is_there(name: str, at: int) -> bool:
    try:
        os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _copy_file(name: str, at: int, new: str, there: int) -> None:
    source = os.open(name, _READ, dir_fd=at)
    try:
        target = os.open(new, _CREATE, 0o600, dir_fd=there)
        seen = os.fstat(source)  # now: what is written while it is read makes it newer than its copy
        try:
            while piece := os.read(source, _PIECE):
                write_all(target, piece)
            _make_alike(source, seen, target)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _make_alike(source: int, seen: os.stat_result, target: int) -> None:
    """Give an open copy the owner, attributes, mode and times of what it was made from, in this order.

    Args:
        seen: `fstat` of the source, which has the owner, mode and times.
    """
    if os.geteuid() == 0:
        os.fchown(target, seen.st_uid, seen.st_gid)
    with contextlib.suppress(OSError):  # a file system without them, or one that is not ours to set
        for attribute in os.listxattr(source):
            os.setxattr(target, attribute, os.getxattr(source, attribute))
    os.fchmod(target, stat.S_IMODE(seen.st_mode))
    os.utime(target, ns=(seen.st_atime_ns, seen.st_mtime_ns))
