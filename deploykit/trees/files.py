"""Create, read and remove files by descriptors of their directories, without following symlinks.

Rules:

* Every call names one component below an open directory.
* A directory that somebody swaps for a symlink meanwhile is an error (ELOOP, ENOTDIR), not a way out of the tree.
* A file gets its mode when it is created, and never more; `umask` takes bits off besides the process's own.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from deploykit.git.objectformat import hash_of_size
from deploykit.system.durable import write_all

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

#: Directories that are open at a time while a tree is removed.
_DEEP: Final = 64

Owner = tuple[int, int]


def open_directory(path: Path | str, dir_fd: int | None = None) -> int:
    """Open a directory, its last component not a symlink."""
    return os.open(path, _DIRECTORY, dir_fd=dir_fd)


def make_directory(name: str, dir_fd: int, *, umask: int | None, owner: Owner | None = None) -> int:
    """Create a directory that must not be there yet, and open it."""
    os.mkdir(name, 0o777 & ~(umask or 0), dir_fd=dir_fd)
    fd = open_directory(name, dir_fd)
    try:
        set_owner_and_mode(fd, 0o777, umask, owner)
    except BaseException:
        os.close(fd)
        raise
    return fd


def set_owner_and_mode(fd: int, mode: int, umask: int | None, owner: Owner | None) -> None:
    """Set the owner of an open file, and its mode where the process's own umask took too much."""
    if owner is not None:
        os.fchown(fd, *owner)
    if umask is not None:
        wanted = mode & ~umask
        if stat.S_IMODE(os.fstat(fd).st_mode) != wanted:
            os.fchmod(fd, wanted)


def process_umask() -> int:
    """Return the umask without changing it (os.umask would, for all threads)."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    except OSError:
        pass
    return 0o022


def put_file(
    name: str, dir_fd: int, content: bytes | Iterable[bytes], *, mode: int, umask: int | None, owner: Owner | None
) -> os.stat_result:
    """Create a file with `content` and return its `fstat`. A file of that name is an error, never overwritten.

    Args:
        mode: before the umask: 0o666 or 0o777.
    """
    fd = os.open(name, _CREATE, mode & ~umask if umask else mode, dir_fd=dir_fd)
    try:
        if isinstance(content, bytes):
            if os.write(fd, content) != len(content):
                os.lseek(fd, 0, os.SEEK_SET)
                write_all(fd, content)
        else:
            for piece in content:
                write_all(fd, piece)
        if owner is not None or umask is not None:
            set_owner_and_mode(fd, mode, umask, owner)
        return os.fstat(fd)
    finally:
        os.close(fd)


def put_symlink(name: str, dir_fd: int, target: bytes, *, owner: Owner | None) -> os.stat_result:
    """Create a symlink and return its `lstat`."""
    os.symlink(os.fsdecode(target), name, dir_fd=dir_fd)
    if owner is None:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    # The owner has the directory already, and may have put another file under the name: that is not chowned.
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        if not stat.S_ISLNK(os.fstat(fd).st_mode):
            raise OSError(errno.EEXIST, "it was swapped while it was made", name)
        os.chown(f"/proc/self/fd/{fd}", *owner)  # the link itself: an O_PATH descriptor has no fchown
        return os.fstat(fd)
    finally:
        os.close(fd)


def file_id(name: str, dir_fd: int, oid_length: int, also: Callable[[bytes], object] = lambda _: None) -> bytes:
    """Return the git id (binary, of that many bytes) of a regular file's content; anything else is an error.

    Args:
        also: called with each piece of the content.
    """
    fd = os.open(name, _READ, dir_fd=dir_fd)
    try:
        seen = os.fstat(fd)
        if not stat.S_ISREG(seen.st_mode):
            raise OSError(22, "not a regular file", name)
        digest = hash_of_size(oid_length).new(b"blob %d\0" % seen.st_size)
        while piece := os.read(fd, 1024 * 1024):
            digest.update(piece)
            also(piece)
        return digest.digest()
    finally:
        os.close(fd)


def remove_tree(name: str, dir_fd: int) -> None:
    """Remove a directory and all below it, never through a symlink; a missing one is fine.

    Any depth is removed, so that nobody who may write there can make a tree that we cannot. Directories deeper than
    `_DEEP` are moved up beside `name` first, under a random name, and removed from there.
    """
    waiting = [name]
    while waiting:
        _remove(waiting.pop(), dir_fd, dir_fd, waiting, _DEEP)


def _remove(name: str, dir_fd: int, top: int, waiting: list[str], depth: int) -> None:
    try:
        fd = open_directory(name, dir_fd)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        os.unlink(name, dir_fd=dir_fd)
        return
    try:
        with os.scandir(fd) as found:
            entries = [(e.name, e.is_dir(follow_symlinks=False)) for e in found]
        for child, is_dir in entries:
            if not is_dir:
                os.unlink(child, dir_fd=fd)
            elif depth:
                _remove(child, fd, top, waiting, depth - 1)
            else:
                moved = f".deploykit-{secrets.token_hex(8)}"
                os.rename(child, moved, src_dir_fd=fd, dst_dir_fd=top)
                waiting.append(moved)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=dir_fd)


class OpenDirectories:
    """Opens directories below a root by their relative paths, component by component, and keeps the last ones open.

    Neighbours in a tree share most of their path, so a short stack of descriptors serves nearly every call.
    """

    def __init__(self, root_fd: int) -> None:
        self._stack: list[tuple[str, int]] = [("", root_fd)]

    def __enter__(self) -> OpenDirectories:
        return self

    def __exit__(self, *_: object) -> None:
        while len(self._stack) > 1:
            os.close(self._stack.pop()[1])

    def open(self, path: str, *, create: bool = False, umask: int | None = None, owner: Owner | None = None) -> int:
        """Return a descriptor of directory `path`; valid until the next call."""
        stack = self._stack
        while stack[-1][0] != path and not _below(path, stack[-1][0]):
            os.close(stack.pop()[1])
        here, fd = stack[-1]
        rest = path[len(here) :].strip("/")
        for part in rest.split("/") if rest else ():
            here = f"{here}/{part}" if here else part
            if create:
                try:
                    fd = make_directory(part, fd, umask=umask, owner=owner)
                except FileExistsError:
                    fd = open_directory(part, fd)
            else:
                fd = open_directory(part, fd)
            stack.append((here, fd))
        return fd


def _below(path: str, parent: str) -> bool:
    return not parent or path.startswith(parent + "/")
