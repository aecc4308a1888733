"""The actions of a console put together."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial

from deploykit.bus import Bus
from deploykit.messages import utc_now
from deploykit.operations.keychoice import KeyChoice
from deploykit.settings.node import Settings
from deploykit.web.actions.actionports import ActionPorts, console_trust, own_key
from deploykit.web.actions.auditing import ActionAudit
from deploykit.web.actions.choosing import PATIENCE, asking_nodes
from deploykit.web.actions.hostport import RolloutDesk
from deploykit.web.actions.locks import ConsoleLocks
from deploykit.web.actions.ports import AccessActions, ConsoleActions
from deploykit.web.actions.presence import ConsolePresence, PresenceKept
from deploykit.web.actions.relay import ConsoleRelay
from deploykit.web.actions.rollouts import ConsoleRollouts
from deploykit.web.projection.activityviews import AuditView
from deploykit.web.projection.queries import Queries


def action_ports(
    settings: Settings,
    queries: Queries,
    kept: RolloutDesk,
    bus: Bus,
    note: Callable[[AuditView], None],
    *,
    key: KeyChoice | None = None,
    now: Callable[[], datetime] = utc_now,
    patience: float = PATIENCE,
) -> ActionPorts:
    """Return what actions work with.

    Args:
        settings: of this machine.
        queries: what the bus has told.
        kept: keeps and runs rollouts.
        bus: started.
        note: writes a line of the audit; it may block.
        key: the console's own; that of the settings when None.
        now: the wall clock, aware UTC.
        patience: seconds that silent nodes are waited for.
    """
    own = key or KeyChoice()
    return ActionPorts(
        settings=settings,
        queries=queries,
        kept=kept,
        bus=bus,
        ask=asking_nodes(settings, bus, partial(own_key, settings, own), partial(console_trust, settings), patience),
        key=own,
        audit=ActionAudit(note, now=now),
        now=now,
    )


def console_actions(
    ports: ActionPorts,
    access: AccessActions,
    presence: PresenceKept,
    announce: Callable[[str], None] = lambda _: None,
) -> ConsoleActions:
    """Return everything that can be done from a console.

    Args:
        ports: what the actions on rollouts and locks work with.
        access: grants access.
        presence: notes who is where.
        announce: is called with a site where somebody came.
    """
    return ConsoleActions(
        rollouts=ConsoleRollouts(ports),
        locks=ConsoleLocks(ports),
        access=access,
        relay=ConsoleRelay(ports),
        presence=ConsolePresence(presence, announce),
    )


__all__ = ["action_ports", "console_actions"]
