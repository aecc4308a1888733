"""What people can do from a console, put together: actions on its bus, ledger and host, and passkeys that sign."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial

import attrs

from deploykit.bus import Bus
from deploykit.settings.node import Settings
from deploykit.trust.trustreader import TrustReader
from deploykit.web.actions.access import ConsoleAccess
from deploykit.web.actions.assembling import action_ports, console_actions
from deploykit.web.actions.auditing import ActionAudit
from deploykit.web.actions.ports import ConsoleActions
from deploykit.web.hosting.host import RolloutHost
from deploykit.web.ledger.ledger import Ledger
from deploykit.web.ledger.rollouts import LedgerRollout
from deploykit.web.projection.activityviews import AuditView
from deploykit.web.projection.queries import Queries
from deploykit.web.signing.desk import SigningDesk
from deploykit.web.viewer import Viewer


@attrs.frozen(kw_only=True, slots=True)
class ActionParts:
    """What a console has for those who do something.

    Args:
        settings: of this machine.
        ledger: what must not be lost.
        host: keeps and runs rollouts.
        bus: of the console.
        queries: what the bus has told.
        note: writes a line of the audit; it may block.
        came: is called with a site where somebody came.
        now: the wall clock, aware UTC.
    """

    settings: Settings
    ledger: Ledger
    host: RolloutHost
    bus: Bus
    queries: Queries
    note: Callable[[AuditView], None]
    came: Callable[[str], None]
    now: Callable[[], datetime]


def make_actions(parts: ActionParts) -> ConsoleActions:
    """Return everything that can be done."""
    host, ledger = parts.host, parts.ledger
    ports = action_ports(parts.settings, parts.queries, host, parts.bus, parts.note, key=host.key, now=parts.now)
    host.on_decided = partial(_note_decided, ports.audit)
    return console_actions(ports, ConsoleAccess(ports, ledger.access), ledger.presence, parts.came)


def _note_decided(audit: ActionAudit, row: LedgerRollout, what: str) -> None:
    """Write down what the console did with a proposal by itself, in the name of who proposed it."""
    action = "deploy" if what == "begin" else "withdraw"
    detail = (
        "begun by the console: enough people have signed, and its time has come"
        if what == "begin"
        else "withdrawn by the console: its mandate has been over for a day"
    )
    audit.done(Viewer(name=row.requested_by), action, detail, site=row.site, rollout=row.rollout)


def make_signing(parts: ActionParts) -> SigningDesk:
    """Return the passkeys that sign."""
    trust = parts.settings.trust
    return SigningDesk(
        parts.settings.web,
        parts.ledger.passkeys,
        parts.ledger.once,
        ActionAudit(parts.note, now=parts.now),
        signers=TrustReader(trust) if trust.allowed_signers else None,
        now=parts.now,
    )


__all__ = ["ActionParts", "make_actions", "make_signing"]
