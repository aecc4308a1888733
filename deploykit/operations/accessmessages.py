"""The commands that grant, extend and revoke an access. Pure: of a password only the hash goes in."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from deploykit.errors import MessageError, UsageError
from deploykit.messages import AccessGrantRequested, AccessRevokeRequested, utc_now
from deploykit.names import NodeName, SiteName
from deploykit.operations.deploy import user_name
from deploykit.system.passwordmaking import hash_sha512
from deploykit.trust.check import Trust
from deploykit.wire.field_types import user_name as check_user

AccessCommandMessage = AccessGrantRequested | AccessRevokeRequested

#: How long a command waits for a node that is off, where the nodes' own cap is not shorter.
_EXPIRES: Final = timedelta(hours=1)


def grant_message(
    trust: Trust | None,
    site: SiteName,
    user: str,
    *,
    password: str = "",
    until: datetime | None = None,
    nodes: Sequence[NodeName] = (),
    by: str = "",
    now: datetime | None = None,
) -> AccessGrantRequested:
    """Return the command that lets a user see a site.

    Args:
        trust: its cap on expiry is kept; None: it is not known here.
        site: the site.
        user: the user.
        password: only its hash is in the message. Empty: an access that is there is extended.
        until: when the access ends; None: the nodes' own default.
        nodes: for these alone; none: all that protect the site.
        by: who asks, in words for others.
        now: the wall clock.

    Raises:
        UsageError: the user's name cannot stand in an access file, or the access is over before it begins.
    """
    at = now or utc_now()
    if until is not None and until <= at:
        raise UsageError("the access would be over before it begins", "name a later end")
    return AccessGrantRequested(
        source=f"operator/{socket.gethostname()}",
        time=at,
        site=site,
        user=_user(user),
        password_hash=hash_sha512(password) if password else None,
        until=until,
        audience=tuple(nodes) or None,
        expires=_expires(trust, at),
        requested_by=by or user_name(),
    )


def revoke_message(
    trust: Trust | None,
    site: SiteName,
    user: str,
    *,
    nodes: Sequence[NodeName] = (),
    by: str = "",
    now: datetime | None = None,
) -> AccessRevokeRequested:
    """Return the command that ends an access. Arguments and errors: as for `grant_message`."""
    at = now or utc_now()
    return AccessRevokeRequested(
        source=f"operator/{socket.gethostname()}",
        time=at,
        site=site,
        user=_user(user),
        audience=tuple(nodes) or None,
        expires=_expires(trust, at),
        requested_by=by or user_name(),
    )


def _user(user: str) -> str:
    try:
        return check_user(user)
    except MessageError:
        raise UsageError(
            f"{user[:80]!a} is no name for an access", "1 to 64 of A-Z a-z 0-9 . _ @ + -, not a dash first"
        ) from None


def _expires(trust: Trust | None, now: datetime) -> datetime:
    return now + (_EXPIRES if trust is None else min(_EXPIRES, trust.policy.max_expiry))


__all__ = ["AccessCommandMessage", "grant_message", "revoke_message"]
