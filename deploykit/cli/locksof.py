"""The locks that nodes show, in commands that look at nodes: printed, and published again where a node is behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from deploykit.bus import Bus
    from deploykit.fleet.lockview import SiteLocks
    from deploykit.messages import NodeDescribed
    from deploykit.names import SiteName
    from deploykit.settings.node import Settings
    from deploykit.trust.check import Trust


@attrs.frozen(kw_only=True, slots=True)
class ShownLocks:
    """What is printed of locks.

    Args:
        notes: a line for each thing that a person should know.
        as_json: the same, for scripts.
    """

    notes: tuple[str, ...]
    as_json: list[dict[str, object]]


def look_at_locks(
    settings: Settings, bus: Bus, trust: Trust, nodes: Sequence[NodeDescribed], *, site: SiteName | None = None
) -> ShownLocks:
    """Return what nodes show of locks; where a node is behind, publish the newer statement.

    Args:
        settings: of this machine.
        bus: connected.
        trust: judges the statements.
        nodes: as they described themselves.
        site: show this site alone.

    Raises:
        KeyFileError: the trusted files cannot be read.
    """
    from deploykit.fleet.lockview import view_locks
    from deploykit.messages import utc_now
    from deploykit.operations.nodes import shortened

    view = view_locks(nodes, trust, utc_now())
    view.publish_newer(bus, settings.topics, within=settings.broker.connect_timeout)
    notes: list[str] = []
    chosen = [each for each in view.sites if site is None or each.site == site]
    for each in chosen:
        notes += each.lines
        if each.behind:
            notes.append(f"{shortened(each.behind)} did not know the newest of {each.site}'s lock: published again")
    return ShownLocks(notes=tuple(notes), as_json=[_entry(each) for each in chosen])


def _entry(locks: SiteLocks) -> dict[str, object]:
    from deploykit.messages import SiteLocked

    return {
        "site": locks.site,
        "in_force": [
            {
                "holder": lock.message.holder,
                "key": lock.signer.fingerprint,
                "principals": list(lock.holders),
                "reason": lock.message.reason,
                "since": lock.message.since.isoformat() if lock.message.since is not None else None,
                "until": lock.message.until.isoformat(),
                "allow_rollback": lock.message.allow_rollback,
                "serial": lock.message.serial,
            }
            for lock in locks.in_force
            if isinstance(lock.message, SiteLocked)
        ],
        "behind": list(locks.behind),
        "doubts": list(locks.doubts),
    }


__all__ = ["ShownLocks", "look_at_locks"]
