"""Read an access file, and replace it in one step: owner, mode and access list stay, a power cut leaves old or new.

Rules:

* The file must be there: only an operator knows which owner and mode the server needs.
* It must be a plain file, not a symbolic link, which the replacement would remove.
* What somebody else wrote between our reading and our writing is not lost: `FileChanged`, and the caller reads again.
* Two daemons on one file take turns by a lock on its directory, so that neither renames what the other is writing.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import AccessError, LockBusy
from deploykit.system.durable import sync_directory, write_all
from deploykit.system.lock import lock_descriptor

#: Bytes of the largest file: some 30,000 users.
_MOST_BYTES: Final = 4 << 20
_log = logging.getLogger(__name__)

_ACCESS_LIST: Final = "system.posix_acl_access"
_KEPT_ATTRIBUTES: Final = (_ACCESS_LIST, "security.selinux")
#: Seconds for the other daemon's turn.
_TURN: Final = 10.0


class FileChanged(Exception):
    """Somebody else has written the file since it was read."""


@attrs.frozen(kw_only=True, slots=True)
class FileSeen:
    """A file as it was read.

    Args:
        content: all of it.
        stamp: what changes with it.
    """

    content: bytes = attrs.field(repr=False)
    stamp: tuple[int, ...]
    uid: int
    gid: int
    mode: int


def read_file(path: Path) -> FileSeen:
    """Return an access file.

    Raises:
        AccessError: it is not there, no plain file, too long, or cannot be read; the text names it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        remedy = "make it, empty, with the owner and mode that the server needs: install -m 640 -g GROUP /dev/null FILE"
        raise AccessError(f"there is no {path}", remedy) from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise AccessError(f"{path} is a symbolic link", "let the settings name the file itself") from None
        raise AccessError(f"cannot read {path}: {error.strerror}") from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise AccessError(f"{path} is no plain file", "let the settings name another")
        content = read_all(fd, _MOST_BYTES + 1)
    except OSError as error:
        raise AccessError(f"cannot read {path}: {error.strerror}") from error
    finally:
        os.close(fd)
    if len(content) > _MOST_BYTES:
        raise AccessError(f"{path} is longer than {_MOST_BYTES} bytes", "remove what nobody needs")
    return FileSeen(
        content=content, stamp=_stamp(found), uid=found.st_uid, gid=found.st_gid, mode=stat.S_IMODE(found.st_mode)
    )


def replace_content(path: Path, seen: FileSeen, content: bytes) -> None:
    """Replace a file by new content, unless somebody has changed it since it was read.

    Raises:
        FileChanged: they have.
        AccessError: there is no room or no right to; the old file stays.
    """
    with _turn(path.parent):
        _replace(path, seen, content)


@contextlib.contextmanager
def _turn(directory: Path) -> Iterator[None]:
    """Hold the lock on a directory.

    Raises:
        AccessError: another process held it all the time, or it cannot be opened.
    """
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise AccessError(f"cannot open {directory}: {error.strerror}") from error
    try:
        _lock(fd, directory)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, directory: Path) -> None:
    try:
        lock_descriptor(fd, directory, wait=_TURN, quiet=_TURN)
    except LockBusy as error:
        raise AccessError(error.problem, "look what holds it") from error
    except OSError as error:  # a file system without locks
        _log.debug("cannot lock %s: %s", directory, error.strerror)


def _replace(path: Path, seen: FileSeen, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.deploykit-new")
    try:
        temporary.unlink(missing_ok=True)  # of a crash; what else lies there is not followed
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            written = os.fstat(fd)
            if (written.st_uid, written.st_gid) != (seen.uid, seen.gid):
                os.fchown(fd, seen.uid, seen.gid)
            _copy_attributes(path, fd)
            os.fchmod(fd, seen.mode)
            write_all(fd, content)
            os.fsync(fd)
        finally:
            os.close(fd)
        if _stamp(path.stat(follow_symlinks=False)) != seen.stamp:
            raise FileChanged(str(path))
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise AccessError(
            f"cannot write {path}: {error.strerror}",
            "the access daemon writes a new file beside it, of the same owner and mode, and renames it",
        ) from error
    finally:
        with contextlib.suppress(OSError):  # it is gone after a rename, and after a failure it is in nobody's way
            temporary.unlink()


def read_all(fd: int, most: int) -> bytes:
    """Return what a descriptor holds, at most so many bytes."""
    pieces = []
    while most > 0 and (piece := os.read(fd, min(most, 1 << 20))):
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)


def _copy_attributes(path: Path, fd: int) -> None:
    """Copy the access list and the security label, where there are any. The directory's default list is not taken."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOSYS):
            return
        raise
    for name in _KEPT_ATTRIBUTES:
        if name in names:
            os.setxattr(fd, name, os.getxattr(path, name, follow_symlinks=False))
        elif name == _ACCESS_LIST and name in os.listxattr(fd):
            os.removexattr(fd, name)


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


__all__ = ["FileChanged", "FileSeen", "read_all", "read_file", "replace_content"]
