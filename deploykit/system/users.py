"""Who a script runs as, and who may therefore change it: looked up once, before anything is touched."""

from __future__ import annotations

import grp
import os
import pwd
from typing import Final

import attrs

from deploykit.errors import PreflightRefused

#: As a site's `run_as`: the scripts run as its `owner`.
AS_OWNER: Final = "owner"


@attrs.frozen(kw_only=True, slots=True)
class Identity:
    """A user with all groups, as login would give them."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str
    shell: str


def parse_identity(text: str, setting: str) -> Identity:
    """Look up `user` or `user:group`; either may be a number.

    Raises:
        PreflightRefused: there is no such user or group here.
    """
    user, _, group = text.partition(":")
    try:
        found = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
        gid = found.pw_gid
        if group:
            gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise PreflightRefused(f"{setting} names {text!r}, which this machine does not know", "correct it") from error
    groups = tuple(sorted({*os.getgrouplist(found.pw_name, found.pw_gid), gid}))
    return Identity(
        uid=found.pw_uid, gid=gid, groups=groups, name=found.pw_name, home=found.pw_dir, shell=found.pw_shell
    )


def identity_of(run_as: str, owner: str) -> Identity | None:
    """Who scripts run as by a site's `run_as` and `owner`; None: as ourselves.

    Raises:
        PreflightRefused: unknown, or we are not root and so cannot become another user.
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
        raise PreflightRefused(f"scripts shall run as {who!r}, and only root can do that", "run as root")
    return identity


def owner_of(owner: str) -> tuple[int, int] | None:
    """The user and group that shall own what is written, of `user` or `user:group`; None: ourselves.

    Raises:
        PreflightRefused: unknown, or we are not root and so cannot give files away.
    """
    if not owner:
        return None
    identity = parse_identity(owner, "owner")
    if os.geteuid() != 0 and identity.uid != os.geteuid():
        raise PreflightRefused(f"files shall belong to {owner!r}, and only root can do that", "run as root")
    return identity.uid, identity.gid


def trusted_users(identity: Identity | None) -> frozenset[int]:
    """Who may change a script and the way to it: root, and who it runs as. Nobody else, the site's owner included."""
    return frozenset({0, os.geteuid() if identity is None else identity.uid})
