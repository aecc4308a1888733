"""Write files so that a crash or a power cut leaves the old content or the new, never a part.

Rules: an error from any of these calls is raised, never swallowed; a function that returned has reached the disk.
`syncfs` writes a whole file system out at once, which for thousands of new files takes a tenth of the time of an fsync
for each. Open the descriptor it gets before the first write: it reports only errors that happened since.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@cache
def _syncfs() -> Callable[[int], int] | None:
    import ctypes  # slow to import, and few callers get here

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
        import ctypes

        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "syncfs")


def sync_directory(path: Path | str | int) -> None:
    """Fsync a directory (a path or a descriptor): new, renamed and removed names in it survive a power cut."""
    if isinstance(path, int):
        os.fsync(path)
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(
    path: Path,
    content: bytes | Iterable[bytes],
    *,
    mode: int = 0o644,
    durable: bool = True,
    sync_parent: bool = True,
) -> None:
    """Replace `path` by `content`: a reader sees the old file or the new one, a power cut leaves one of them.

    One writer at a time: the caller holds a lock. The temporary name is fixed, so a crash leaves at most one stray
    file, which the next write reuses.

    Args:
        content: all bytes, or pieces of them in order.
        mode: of the new file, before the umask.
        durable: fsync the file and its directory; without, a power cut may lose the new content.
        sync_parent: fsync the directory too; leave it out where the caller does so after several files.

    Raises:
        OSError: the file system refused; the old file stays.
    """
    temporary = path.with_name(path.name + ".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        for piece in (content,) if isinstance(content, bytes) else content:
            write_all(fd, piece)
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    temporary.replace(path)
    if durable and sync_parent:
        sync_directory(path.parent)


def write_all(fd: int, content: bytes | memoryview) -> None:
    """Write all of `content`, however often the kernel takes only a part."""
    done = os.write(fd, content) if content else 0
    if done < len(content):
        view = memoryview(content)
        while done < len(content):
            done += os.write(fd, view[done:])
