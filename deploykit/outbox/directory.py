"""The spool directory: opened and checked once per operation; all in it is reached through its descriptor.

Modes: 3770 (setgid: records get the spool's group; sticky: no user removes another's record) or, for one user alone,
0700. A looser mode is refused: others could read what is queued, or a member of the group could remove it.
"""

from __future__ import annotations

import errno
import os
import stat
from types import TracebackType
from typing import Self

from deploykit.errors import OutboxError

SHARED_MODE = 0o3770
PRIVATE_MODE = 0o700
DEAD = "dead"
BAD = "bad"
#: Prefix of a foreign directory that stood in the place of one of our files and could not be removed.
ASIDE = ".aside-"

#: Errors of opening one of our files when another user has put something else in its place.
STRANGE = frozenset(
    {
        errno.EACCES,
        errno.EAGAIN,  # its owner holds a lease on it
        errno.EISDIR,
        errno.ELOOP,
        errno.ENODEV,
        errno.ENOTDIR,
        errno.ENXIO,
        errno.EPERM,
    }
)

_REMEDIES = {
    errno.ENOSPC: "free space or inodes on the file system that holds it (df -h, df -i)",
    errno.EDQUOT: "the disk quota of this user is used up",
    errno.EROFS: "the file system is mounted read-only",
    errno.EACCES: "add this user to the group of the spool; it takes effect at the next login",
    errno.EPERM: "only the owner of the spool or of the record may do that",
    errno.ENOENT: "create it, owned by the relay's user, mode 3770; or name another in [outbox] path",
    errno.ENOTDIR: "name a directory in [outbox] path",
    errno.EIO: "the disk reports errors; see the kernel's log",
}


def refused(action: str, path: str, error: OSError) -> OutboxError:
    """Return the error that names the failed step, the spool and the way out."""
    reason = error.strerror or str(error)
    return OutboxError(f"cannot {action} spool {path}: {reason}", _REMEDIES.get(error.errno or 0, ""))


class Spool:
    """The open spool directory (a context manager). `fd` is its descriptor, for `dir_fd=`.

    Args:
        path: the directory.
        action: what is being done, for an error's text.
    """

    __slots__ = ("fd", "gid", "owner", "path", "shared")

    def __init__(self, path: str, action: str) -> None:
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise refused(action, path, error) from error
        found = os.fstat(self.fd)
        mode = stat.S_IMODE(found.st_mode)
        if mode & 0o007 or (mode & 0o020 and mode & 0o3000 != 0o3000):
            os.close(self.fd)
            raise OutboxError(f"spool {path} has mode {mode:04o}, which is too open", f"chmod 3770 {path}")
        self.owner = found.st_uid
        self.gid = found.st_gid
        self.shared = bool(mode & 0o020)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self.fd)

    @property
    def settles_all(self) -> bool:
        """Whether this process may remove every user's records: the sticky bit leaves that to the owner and root."""
        return os.geteuid() in (0, self.owner)

    def trusts(self, uid: int) -> bool:
        """Return whether files of `uid` that are not records (locks, marks, folders) count here."""
        return uid in (0, self.owner)

    def write(self, name: str, data: bytes, *, temporary: str, folder: int | None = None) -> None:
        """Write `data` to file `name`, durable and whole, or not at all.

        Args:
            name: its name in the spool, or in `folder`.
            temporary: the name in the spool that it has until it is whole.
            folder: descriptor of the directory below the spool it goes to.

        Raises:
            OSError: it was not made.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=self.fd)
        try:
            try:
                if self.shared:
                    # The group reads (the relay is a member) and does not write: who may write may also truncate.
                    os.fchmod(fd, 0o640)
                elif os.geteuid() == 0:
                    os.fchown(fd, self.owner, self.gid)
                # Not system/durable: a push would load one more module for a few lines, and this works by descriptors.
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
            finally:
                os.close(fd)
            target = self.fd if folder is None else folder
            os.rename(temporary, name, src_dir_fd=self.fd, dst_dir_fd=target)
        except BaseException:
            self.remove(temporary)
            raise
        try:
            os.fsync(target)
        except OSError:
            # Whether it is durable is unknown, so it must not look queued.
            remove_at(target, name)
            raise

    def remove(self, name: str) -> None:
        """Remove file `name` if it is there and may be removed."""
        remove_at(self.fd, name)

    def clear(self, name: str) -> None:
        """Remove what another user has put in the place of one of our files; nothing is followed.

        Raises:
            OSError: this process may not.
        """
        clear_at(self.fd, name)

    def folder(self, name: str) -> int:
        """Open `dead` or `bad` and return its descriptor, which the caller closes.

        The spool's owner makes it where it is missing, or where another user put something else.

        Raises:
            OSError: it is missing, not a directory, or not the owner's.
        """
        try:
            return self._open_folder(name)
        except OSError:
            if not self.settles_all or not self._foreign(name):
                raise
        self.clear(name)
        self.make_folder(name)
        return self._open_folder(name)

    def _foreign(self, name: str) -> bool:
        """Return whether the owner has no directory of this name."""
        try:
            found = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return True
        return not stat.S_ISDIR(found.st_mode) or not self.trusts(found.st_uid)

    def _open_folder(self, name: str) -> int:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
        found = os.fstat(fd)
        if not self.trusts(found.st_uid) or stat.S_IMODE(found.st_mode) & 0o007:
            os.close(fd)
            raise PermissionError(errno.EPERM, f"{name}/ does not belong to the spool's owner, or is open to others")
        return fd

    def make_folder(self, name: str) -> None:
        """Make `dead` or `bad` like the spool itself: same owner, group and mode."""
        try:
            os.mkdir(name, PRIVATE_MODE, dir_fd=self.fd)
        except FileExistsError:
            return
        if os.geteuid() == 0:
            os.chown(name, self.owner, self.gid, dir_fd=self.fd, follow_symlinks=False)
        os.chmod(name, SHARED_MODE if self.shared else PRIVATE_MODE, dir_fd=self.fd)


def remove_at(folder: int, name: str) -> None:
    """Remove a file if it is there and may be removed."""
    try:
        os.unlink(name, dir_fd=folder)
    except OSError:
        return


def clear_at(folder: int, name: str) -> None:
    """Remove an entry of a directory, whatever it is, without following it; rename a directory that is not empty.

    Another user's directory can be renamed in place; only its owner can move or empty it.

    Raises:
        OSError: this process may not.
    """
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        try:
            os.rmdir(name, dir_fd=folder)
        except OSError:
            os.rename(name, aside_name(), src_dir_fd=folder, dst_dir_fd=folder)


def aside_name() -> str:
    """Return a new name for a directory that cannot be removed and must not keep its name."""
    return f"{ASIDE}{os.urandom(8).hex()}"


def _gid(group: str | int) -> int:
    from deploykit.system.users import find_group  # not needed on the path of a push

    gid = group if isinstance(group, int) else find_group(group)
    if gid is None:
        raise OutboxError(f"there is no group {group!a}", "add it (addgroup), or name another")
    return gid


def create(path: str, *, shared: bool, group: str | int) -> None:
    """Make the spool directory, with its sub-directories, if it is not there.

    Args:
        shared: 3770 for a group, or 0700 for this user alone.
        group: the spool's group; the group of this process when empty.

    Raises:
        OutboxError: it cannot be made.
    """
    try:
        os.stat(path)  # noqa: PTH116 - pathlib costs a push some milliseconds
    except FileNotFoundError:
        import contextlib  # neither is needed on the path of a push
        from pathlib import Path
    except OSError as error:
        raise refused("look into", path, error) from error
    else:
        return
    made = Path(path)
    # Made under another name, so that a crash in between leaves no half-made spool behind.
    half = made.with_name(f".{made.name}.{os.urandom(4).hex()}")
    try:
        made.parent.mkdir(parents=True, exist_ok=True)
        half.mkdir(PRIVATE_MODE)
        try:
            if group != "":
                os.chown(half, -1, _gid(group))
            if shared:
                half.chmod(SHARED_MODE)
            with Spool(str(half), "create") as spool:
                spool.make_folder(DEAD)
                spool.make_folder(BAD)
            half.rename(made)
        except (OSError, OutboxError):
            for name in (DEAD, BAD, "."):
                with contextlib.suppress(OSError):
                    (half / name).resolve().rmdir()
            if not made.is_dir():  # else another process made it first
                raise
        parent = os.open(made.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    except OSError as error:
        raise refused("create", path, error) from error
