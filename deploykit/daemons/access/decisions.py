"""What an authorized command on an access asks of a node, or why it is not done. Pure: `now` is an argument.

Rules:

* An access always ends: after `default_days` where nobody says when, at most `longest_days` ahead.
* A grant that is older than the last revocation of the same user does not bring the access back.
* A revocation is never too old: it only takes away.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from deploykit.daemons.access.hashrules import hash_problem
from deploykit.daemons.access.sitefile import AccessChange
from deploykit.errors import PolicyRefused, UsageError
from deploykit.messages import AccessGrantRequested, AccessRevokeRequested
from deploykit.settings.access import AccessSettings
from deploykit.system.passwordmaking import hash_for_people, hash_sha512


def change_of(
    message: AccessGrantRequested | AccessRevokeRequested,
    settings: AccessSettings,
    now: datetime,
    revoked_at: datetime | None = None,
) -> AccessChange:
    """Return what a command asks for, for a site that is in the settings.

    Args:
        message: the command. A password in clear is hashed here.
        settings: of the node.
        now: aware.
        revoked_at: when the user's access was last asked to end.

    Raises:
        PolicyRefused: it asks for what this node does not do.
    """
    by = message.requested_by
    if isinstance(message, AccessRevokeRequested):
        return AccessChange(kind="revoke", user=message.user, asked_at=message.time, requested_by=by)
    until = message.until or now + timedelta(days=settings.default_days)
    if until <= now:
        raise PolicyRefused("the access is over before it begins", "name a later end")
    if until > now + timedelta(days=settings.longest_days):
        raise PolicyRefused(
            f"an access lasts {settings.longest_days:g} days at most on this node",
            "name an earlier end, extend it later",
        )
    if revoked_at is not None and message.time < revoked_at:
        raise PolicyRefused("the access was revoked after this was asked for", "grant it anew")
    kind = settings.sites[message.site].kind
    hash = message.password_hash
    if hash is None and message.password:
        try:
            hash = hash_sha512(message.password) if kind == "haproxy" else hash_for_people(message.password)
        except UsageError as error:
            raise PolicyRefused(error.problem, error.remedy) from error
    if hash is not None and (problem := hash_problem(hash, kind)):
        raise PolicyRefused(problem, "`deploykit access grant` makes one that every server takes")
    return AccessChange(kind="grant", user=message.user, hash=hash, until=until, asked_at=message.time, requested_by=by)


__all__ = ["change_of"]
