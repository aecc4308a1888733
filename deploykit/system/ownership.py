"""Find who can change a file: through its owner, its mode, an access list, and every directory on the way to it.

Rules:

* The way is walked from `/` by descriptors. What is checked is what is open, so a name that is swapped between the
  look and the next step is of no use. Symlinks are followed by hand and count as a part of the way.
* A directory that others can write is accepted only where it is sticky, as `/tmp` is: nobody can rename or remove there
  what is not their own, and the next part of the way must belong to a trusted user again.
* A group that can write is accepted only where it is a trusted user's private one: named like the user, and with no
  other member (`umask 002` on Debian). Not where an access list is set: its entries hide behind the group's bits.

Not seen: access lists of other kinds (NFSv4), members of a group that the user database does not list, and whoever
opened a file for writing before it became ours.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import stat
from pathlib import Path
from typing import Final

_PATH_ONLY: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_ACCESS_LIST: Final = "system.posix_acl_access"
_MAX_LINKS: Final = 40


class OthersCanChange(Exception):
    """Somebody who is not trusted can change `place`: `why` says through what, `remedy` how to end it."""

    def __init__(self, place: str, why: str, remedy: str, uid: int | None = None) -> None:
        super().__init__(f"{place}: {why}")
        self.place = place
        self.why = why
        self.remedy = remedy
        self.uid = uid


def open_owned(path: Path, trusted: frozenset[int], *, sticky: bool = False, way_only: bool = False) -> int:
    """Return a descriptor (O_PATH) of what `path` leads to, which only trusted users can change or swap.

    Args:
        path: a file or directory.
        trusted: user ids.
        sticky: it may itself be a directory like `/tmp`, where others can add what is their own.
        way_only: it may itself belong to anybody, who can change it and cannot swap it.

    Raises:
        OthersCanChange: somebody else can.
        OSError: it is not there, or cannot be reached.
    """
    rest = list(reversed(path.absolute().parts[1:]))
    links = 0
    with contextlib.ExitStack() as opened:
        way = [("", _enter("/", None, opened))]
        require_owned("/", way[0][1], trusted, sticky=True)
        while rest:
            part = rest.pop()
            if part in ("", "."):  # of a link's target
                continue
            if part == "..":
                del way[max(1, len(way) - 1) :]
                continue
            here, at = way[-1]
            place = f"{here}/{part}"
            fd = _enter(part, at, opened)
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), place)
                require_owned(place, fd, trusted)
                target = os.readlink("", dir_fd=fd)
                if target.startswith("/"):
                    del way[1:]
                rest += reversed(target.split("/"))
                continue
            if rest or not way_only:
                require_owned(place, fd, trusted, sticky=True)
            else:  # whoever owns an entry of a sticky directory can rename it
                require_owned(here or "/", at, trusted)
            way.append((place, fd))
        last, fd = way[-1]
        if not way_only:
            require_owned(last or "/", fd, trusted, sticky=sticky)
        return os.dup(fd)


def check_owned(path: Path, trusted: frozenset[int], *, sticky: bool = False) -> None:
    """Make sure that only trusted users can change what `path` leads to, or swap it. See `open_owned`."""
    os.close(open_owned(path, trusted, sticky=sticky))


def require_owned(place: str, fd: int, trusted: frozenset[int], *, sticky: bool = False) -> None:
    """Make sure that only trusted users can change what is open at `fd`; its way is not looked at.

    Args:
        place: what to call it.
        sticky: a directory that others can write will do where it is sticky.

    Raises:
        OthersCanChange: somebody else can.
    """
    seen = os.fstat(fd)
    if seen.st_uid not in trusted:
        remedy = f"chown {user_name(max(trusted))} {place}"
        raise OthersCanChange(place, f"it belongs to uid {seen.st_uid} ({user_name(seen.st_uid)})", remedy, seen.st_uid)
    if stat.S_ISLNK(seen.st_mode) or (sticky and seen.st_mode & stat.S_ISVTX):
        return
    if seen.st_mode & stat.S_IWOTH:
        raise OthersCanChange(place, "everybody can write it", f"chmod o-w {place}")
    if seen.st_mode & stat.S_IWGRP:
        if _has_access_list(fd):
            raise OthersCanChange(place, "its access list lets others write it", f"chmod g-w {place}")
        if not is_private_group(seen.st_gid, trusted):
            why = f"the group {_group_name(seen.st_gid)} can write it"
            raise OthersCanChange(place, why, f"chmod g-w {place}")


def is_private_group(gid: int, trusted: frozenset[int]) -> bool:
    """Return whether a group is a trusted user's own: named like the user, and without members but trusted ones."""
    try:
        group = grp.getgrgid(gid)
        members = {pwd.getpwnam(name).pw_uid for name in (group.gr_name, *group.gr_mem)}
    except KeyError:
        return False
    members.update(user.pw_uid for user in pwd.getpwall() if user.pw_gid == gid)
    return members <= trusted


def user_name(uid: int) -> str:
    """Return a user's name, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _enter(part: str, at: int | None, opened: contextlib.ExitStack) -> int:
    fd = os.open(part, _PATH_ONLY, dir_fd=at)
    opened.callback(os.close, fd)
    return fd


def _has_access_list(fd: int) -> bool:
    try:
        return _ACCESS_LIST in os.listxattr(f"/proc/self/fd/{fd}")  # an O_PATH descriptor has no calls of its own
    except OSError as error:
        return error.errno not in (errno.ENOTSUP, errno.ENOSYS)  # cannot be seen: take it that there is one
