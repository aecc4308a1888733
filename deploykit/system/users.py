"""Users and groups by name or number: the one look-up for owners, `run_as` and groups, before anything is touched.

Rules:

* `user`, `user:group`; either may be a number. A user has to be known to this machine, a group's number need not be.
* Without a group it is the user's own.
"""

from __future__ import annotations

import grp
import os
import pwd
from typing import Final

import attrs

from deploykit.errors import PreflightRefused

#: As a site's `run_as`: the scripts run as its `owner`.
AS_OWNER: Final = "owner"
#: The last user or group number: the one above means "leave it" to chown(2).
_LAST_ID: Final = 2**32 - 2


@attrs.frozen(kw_only=True, slots=True)
class Identity:
    """A user with all groups, as login would give them."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str
    shell: str


def find_identity(text: str) -> Identity | None:
    """Return the user of `user` or `user:group`, or None where this machine does not know the user or the group."""
    user, _, group = text.partition(":")
    try:
        found = pwd.getpwuid(int(user)) if _is_number(user) else pwd.getpwnam(user)
    except (KeyError, ValueError):  # ValueError: a name with a NUL in it
        return None
    gid = find_group(group) if group else found.pw_gid
    if gid is None:
        return None
    groups = tuple(sorted({*os.getgrouplist(found.pw_name, found.pw_gid), gid}))
    return Identity(
        uid=found.pw_uid, gid=gid, groups=groups, name=found.pw_name, home=found.pw_dir, shell=found.pw_shell
    )


def find_group(text: str) -> int | None:
    """Return a group's number by its name or number, or None where there is no such group.

    >>> find_group("0"), find_group("no such group")
    (0, None)
    """
    if _is_number(text):
        return int(text) if int(text) <= _LAST_ID else None
    try:
        return grp.getgrnam(text).gr_gid
    except (KeyError, ValueError):
        return None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def parse_identity(text: str, setting: str) -> Identity:
    """Return the user of `user` or `user:group`; `setting` is where the text stands.

    Raises:
        PreflightRefused: there is no such user or group here.
    """
    identity = find_identity(text)
    if identity is None:
        raise PreflightRefused(f"{setting} names {text!r}, which this machine does not know", "correct it")
    return identity


def identity_of(run_as: str, owner: str) -> Identity | None:
    """Return who scripts run as by a site's `run_as` and `owner`; None: as the present user.

    Raises:
        PreflightRefused: unknown, or this process is not root and so cannot become another user.
    """
    if not run_as:
        return None
    if run_as != AS_OWNER:
        identity = parse_identity(run_as, "run_as")
    elif owner:
        identity = parse_identity(owner, "owner")
    else:
        raise PreflightRefused('run_as = "owner" and there is no owner', "set owner, or leave run_as out")
    if os.geteuid() != 0 and (identity.uid, identity.gid) != (os.geteuid(), os.getegid()):
        who = owner if run_as == AS_OWNER else run_as
        raise PreflightRefused(f"scripts are to run as {who!r}, and only root can do that", "run as root")
    return identity


def owner_of(owner: str) -> tuple[int, int] | None:
    """Return the user and group that are to own what is written; None: the present user.

    Raises:
        PreflightRefused: unknown, or this process is not root and so cannot give files away.
    """
    if not owner:
        return None
    identity = parse_identity(owner, "owner")
    if os.geteuid() != 0 and identity.uid != os.geteuid():
        raise PreflightRefused(f"files are to belong to {owner!r}, and only root can do that", "run as root")
    return identity.uid, identity.gid


def trusted_users(identity: Identity | None) -> frozenset[int]:
    """Return who may change a script and the way to it: root, and who it runs as; not the site's owner as such."""
    return frozenset({0, os.geteuid() if identity is None else identity.uid})
