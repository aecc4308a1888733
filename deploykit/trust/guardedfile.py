"""Files that hold keys or trust: read with their modes checked, written durably. No cryptography.

Rules:

* A secret that others can read is refused: its mode is 0600, or 0640 with a group this process is in.
* A file of trusted keys that others can write is refused, and one in a directory that everybody can write.
* Modes are read from the open descriptor, so a swap between check and read gains nothing.
* Writing is durable: temporary name, fsync, link or rename, fsync of the directory. No key is ever overwritten.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from deploykit.errors import KeyFileError

#: Most bytes of a file of one key.
MAX_KEY: Final = 1 << 16


def read_trusted(path: Path, what: str, limit: int) -> str:
    """Return the text of a file that only root or this user may write.

    Args:
        path: the file.
        what: it is, for errors.
        limit: most bytes of it.

    Raises:
        KeyFileError: unreadable, longer, writable by others, or not UTF-8.
    """
    return as_text(path, read_trusted_bytes(path, what, limit))


def read_trusted_bytes(path: Path, what: str, limit: int) -> bytes:
    """Return the bytes of a file that only root or this user may write. See `read_trusted`."""
    with opened(path, what) as file:
        check_owner_writes(path, os.fstat(file))
        return read_bounded(path, file, limit)


@contextlib.contextmanager
def opened(path: Path, what: str) -> Iterator[int]:
    """Yield a descriptor of a regular file; the errors name `what` it is."""
    try:
        # Non-blocking: a FIFO in the file's place must not hang the daemon.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise KeyFileError(f"cannot read {what} {path}: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise KeyFileError(f"{what} {path} is not a regular file")
        yield file
    finally:
        os.close(file)


def read_bounded(path: Path, file: int, limit: int) -> bytes:
    """Return all bytes of an open file; refuse one that is longer than `limit`."""
    data = b""
    while len(data) <= limit:
        try:
            block = os.read(file, limit + 1 - len(data))
        except OSError as error:
            raise KeyFileError(f"cannot read {path}: {error.strerror}") from error
        if not block:
            return data
        data += block
    raise KeyFileError(f"{path} is longer than {limit} bytes")


def as_text(path: Path, data: bytes) -> str:
    """Return bytes of a file as text; refuse what is not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise KeyFileError(f"{path} is not text in UTF-8") from None


def check_secret(path: Path, found: os.stat_result, what: str) -> None:
    """Refuse a secret that others could read or change."""
    mode = stat.S_IMODE(found.st_mode)
    ours = found.st_gid in {os.getegid(), *os.getgroups()}
    if mode & 0o077 and not (mode & 0o077 == stat.S_IRGRP and ours):
        raise KeyFileError(
            f"{what} {path} has mode {mode:04o}: others could read or change it",
            f"chmod 600 {path}, or 640 with a group the daemon is in",
        )
    _check_owner(path, found)


def check_owner_writes(path: Path, found: os.stat_result) -> None:
    """Refuse a file that others than root and this user could change."""
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o022:
        raise KeyFileError(f"{path} has mode {mode:04o}: others could add their own keys", f"chmod go-w {path}")
    _check_owner(path, found)
    _check_place(path)


def _check_place(path: Path) -> None:
    """Refuse a file in whose place everybody could put a link to another one, such as an empty file of root's."""
    for place in {*path.absolute().parents, *Path(os.path.realpath(path)).parents}:
        try:
            mode, read_only = place.stat().st_mode, os.statvfs(place).f_flag & os.ST_RDONLY
        except OSError as error:
            raise KeyFileError(f"cannot read {place}: {error.strerror}") from error
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX and not read_only:
            raise KeyFileError(
                f"{path} lies in {place}, which everybody can write: others could put another file there",
                f"chmod o-w {place}",
            )


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise KeyFileError(f"{path} belongs to user {found.st_uid}, neither root nor us", f"chown root {path}")


def way_out(path: Path, error: OSError) -> str:
    """Return what a person can do about a file that cannot be written; empty where nothing is known."""
    return f"make the directory {path.parent} first" if isinstance(error, FileNotFoundError) else ""


@contextlib.contextmanager
def open_directory(path: Path) -> Iterator[int]:
    """Yield a descriptor of a directory."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _temporary(directory: int, name: str, data: bytes, mode: int, owner: tuple[int, int] | None) -> Iterator[str]:
    """Yield the name of a finished, synced temporary file; remove it in the end if it still has that name."""
    temporary = f".{name}.{secrets.token_hex(8)}"
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        try:
            if owner is not None and owner != (os.geteuid(), os.fstat(file).st_gid):
                os.fchown(file, *owner)
            os.fchmod(file, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            os.fsync(file)
        finally:
            os.close(file)
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)


def write_new(directory: int, name: str, data: bytes, mode: int = 0o600) -> None:
    """Create a whole new file. A link fails where a rename would overwrite."""
    with _temporary(directory, name, data, mode, None) as temporary:
        os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    os.fsync(directory)


def replace_in(directory: int, name: str, data: bytes, mode: int, owner: tuple[int, int] | None) -> None:
    """Replace a whole file: a reader sees the old content or the new."""
    with _temporary(directory, name, data, mode, owner) as temporary:
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)


__all__ = [
    "MAX_KEY",
    "as_text",
    "check_owner_writes",
    "check_secret",
    "open_directory",
    "opened",
    "read_bounded",
    "read_trusted",
    "read_trusted_bytes",
    "replace_in",
    "way_out",
    "write_new",
]
