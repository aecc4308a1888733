"""Read an access file, and replace it in one step: owner, mode and access list stay, a power cut leaves old or new.

Rules:

* The file must be there: only an operator knows which owner and mode the server needs.
* It must be a plain file, not a symbolic link, which the replacement would remove.
* What somebody else wrote between our reading and our writing is not lost: `FileChanged`, and the caller reads again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import AccessError
from deploykit.system.durable import sync_directory, write_all

#: Bytes of the largest file: some 30,000 users.
_MOST_BYTES: Final = 4 << 20
_KEPT_ATTRIBUTES: Final = ("system.posix_acl_access", "security.selinux")


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
    """Copy the access list and the security label, where there are any."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOSYS):
            return
        raise
    for name in _KEPT_ATTRIBUTES:
        if name in names:
            os.setxattr(fd, name, os.getxattr(path, name, follow_symlinks=False))


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


__all__ = ["FileChanged", "FileSeen", "read_all", "read_file", "replace_content"]
