"""Locks from the console, signed by its own key, in the name of whoever asked for them.

Rules:

* Whoever has the role live locks, and lifts what this console locked in their name. Anything else needs an admin.
* In whose name the console locked stands in the lock that its own key signed: nobody else can write that.
* The outcome says which nodes hold the statement, as they show it, and which do not.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from deploykit.errors import ActionRefused, UsageError
from deploykit.messages import SiteLocked, one_line
from deploykit.operations.locks import DEFAULT_LOCK, LockOutcome, lock_site, look_at_lock, not_locked, unlock_site
from deploykit.operations.moments import parse_moment
from deploykit.operations.nodes import shortened
from deploykit.trust.lockrules import KnownStatement
from deploykit.trust.signature import BodySigner
from deploykit.web.actions.actionports import ActionPorts, site_named
from deploykit.web.actions.asked import LockAsked
from deploykit.web.actions.choosing import PATIENCE
from deploykit.web.actions.ports import LockActions
from deploykit.web.actions.rights import require
from deploykit.web.actions.shown import ActionOutcome, LockState
from deploykit.web.viewer import Viewer

#: Characters of a reason: a lock has at most 2,048 bytes.
_REASON = 500


class ConsoleLocks(LockActions):
    """See above.

    Args:
        ports: what it works with.
        patience: seconds that nodes are waited for, twice.
    """

    def __init__(self, ports: ActionPorts, patience: float = PATIENCE) -> None:
        self._ports = ports
        self._patience = patience

    def lock(self, viewer: Viewer, asked: LockAsked) -> ActionOutcome:
        """See `LockActions`."""
        ports = self._ports
        with ports.audit.judging(viewer, "lock", site=asked.site):
            site = site_named(asked.site)
            require(viewer, site, "live", "lock a site")
            until = _until(asked, ports.now())
            reason = one_line(asked.reason, _REASON)
            if not reason:
                raise ActionRefused("a lock says why", status=422, reason="a lock says why")
            try:
                outcome = lock_site(
                    ports.settings,
                    ports.bus,
                    ports.signer(),
                    site,
                    reason,
                    until=until,
                    allow_rollback=asked.allow_rollback,
                    timeout=self._patience,
                    trust=ports.trust(),
                    holder=viewer.name,
                )
            except UsageError as error:  # of the times alone: all else was looked at
                raise ActionRefused(error.problem, error.remedy, status=422, until=error.problem) from error
        return self._reported(viewer, "lock", asked.site, outcome)

    def unlock(self, viewer: Viewer, site: str, reason: str = "") -> ActionOutcome:
        """See `LockActions`."""
        ports = self._ports
        with ports.audit.judging(viewer, "unlock", site=site):
            name = site_named(site)
            require(viewer, name, "live", "unlock a site")
            key = ports.signer()

            def may_lift(lock: KnownStatement) -> None:
                if not viewer.may(name, "admin") and not locked_for(lock, viewer, key):
                    raise ActionRefused(
                        f"{name} is {one_line(str(lock), 400)}: it is not yours",
                        "ask whoever holds it, or somebody with the role admin",
                    )

            outcome = unlock_site(
                ports.settings,
                ports.bus,
                key,
                name,
                one_line(reason, _REASON),
                timeout=self._patience,
                trust=ports.trust(),
                holder=viewer.name,
                may_lift=may_lift,
            )
        return self._reported(viewer, "unlock", site, outcome)

    def state(self, viewer: Viewer, site: str) -> LockState:
        """See `LockActions`. It asks nodes, so it needs the role that the statement will need."""
        ports = self._ports
        with ports.audit.judging(viewer, "look at a lock", site=site):
            name = site_named(site)
            require(viewer, name, "live", "lock a site")
            look = look_at_lock(
                ports.settings, ports.bus, ports.signer(), name, timeout=self._patience, trust=ports.trust()
            )
        lifted = look.lifted.signed if look.lifted is not None else None
        return LockState(
            site=site,
            serial=look.serial,
            locks=tuple(one_line(line, 400) for line in look.lines),
            body=lifted.body if lifted is not None else "",
            signature=lifted.signature if lifted is not None else "",
            nodes=len(look.nodes),
        )

    def _reported(self, viewer: Viewer, action: str, site: str, outcome: LockOutcome) -> ActionOutcome:
        """Write what became of a statement into the audit, and return it in words."""
        message = outcome.message
        if message is None:
            state: Literal["done", "asked"] = "asked" if outcome.doubted else "done"
            return ActionOutcome(
                state=state, site=site, detail=not_locked(site, doubted=outcome.doubted), notes=outcome.notes
            )
        whole = len(outcome.holds) + len(outcome.lacks)
        detail = f"{message.summary}; {len(outcome.holds)} of {whole} nodes have it"
        self._ports.audit.done(viewer, action, detail, site=site)
        notes = list(outcome.notes)
        if outcome.lacks:
            notes.append(f"not on {shortened(outcome.lacks)}: they hear of it from the others")
        also = "also" if isinstance(message, SiteLocked) else "still"
        notes += [f"{site} is {also} {one_line(str(other), 400)}" for other in outcome.others]
        complete = bool(outcome.holds) and not outcome.lacks
        return ActionOutcome(
            state="done" if complete else "asked", site=site, detail=detail, notes=tuple(dict.fromkeys(notes))
        )


def locked_for(lock: KnownStatement, viewer: Viewer, key: BodySigner) -> bool:
    """Return whether the console's own key made a lock in the name of a viewer."""
    ours = any(each.fingerprint == key.fingerprint for each in lock.signer.each)
    return ours and bool(viewer.name) and lock.message.holder == viewer.name


def _until(asked: LockAsked, now: datetime) -> datetime:
    text = asked.until.strip()
    if not text:
        return now + DEFAULT_LOCK
    try:
        until = parse_moment(text, now)
    except UsageError as error:
        raise ActionRefused(error.problem, error.remedy, status=422, until=error.problem) from error
    if until <= now:
        problem = f"{until.astimezone(UTC):%Y-%m-%d %H:%M} UTC is over"
        raise ActionRefused(problem, "give a later time", status=422, until=problem)
    return until


__all__ = ["ConsoleLocks", "locked_for"]
