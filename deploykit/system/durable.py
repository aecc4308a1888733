"""Make what was written last: the few system calls that a power cut respects.

Rules: an error from any of them is raised, never swallowed; success is reported to nobody before they returned.
`syncfs` writes a whole file system out in one go, which for thousands of new files is a tenth of the time of an fsync
for each; the descriptor it is given must be open since before the first write, so that no write error is missed.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path


@cache
def _syncfs() -> Callable[[int], int] | None:
    try:
        function = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_int]
    function.restype = ctypes.c_int
    call: Callable[[int], int] = function
    return call


def sync_filesystem(fd: int) -> None:
    """Write out everything on the file system of `fd`, a directory that was opened before the writes.

    Raises:
        OSError: the disk reported an error for something written since `fd` was opened.
    """
    call = _syncfs()
    if call is None:
        os.sync()  # reports no error; the caller's own fsync of its directory still does
        return
    if call(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "syncfs")


def sync_directory(path: Path | int) -> None:
    """Make the names in a directory last."""
    if isinstance(path, int):
        os.fsync(path)
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(path: Path, content: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Replace `path` by `content`: a reader sees the old or the new file, a power cut leaves one of them.

    The temporary name is fixed, so a crash leaves at most one stray file, which the next write reuses.
    """
    temporary = path.with_name(path.name + ".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        write_all(fd, content)
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    temporary.replace(path)
    if durable:
        sync_directory(path.parent)


def write_all(fd: int, content: bytes | memoryview) -> None:
    """Write all of `content`, however often the kernel takes only a part."""
    done = os.write(fd, content) if content else 0
    if done < len(content):
        view = memoryview(content)
        while done < len(content):
            done += os.write(fd, view[done:])


def replace_file(path: Path, pieces: Iterable[bytes], *, mode: int = 0o644, sync_parent: bool = True) -> None:
    """Replace `path` by new content, whole or not at all. One writer at a time (the caller holds a lock)."""
    fresh = path.with_name(path.name + ".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        for piece in pieces:
            write_all(fd, piece)
        os.fsync(fd)
    finally:
        os.close(fd)
    fresh.rename(path)
    if sync_parent:
        sync_directory(path.parent)
