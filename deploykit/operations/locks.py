"""Lock a site, and unlock it: ask the nodes what they know, publish a newer statement, see which nodes hold it.

A statement stays good without expiry, so a node that is off hears it later from those that hold it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

import attrs

from deploykit.bus import Bus
from deploykit.errors import KeyFileError, MessageError, NobodyMatches, PolicyRefused
from deploykit.fleet.lockview import LockView, SiteLocks, shows, view_locks
from deploykit.fleet.selection import Selection
from deploykit.messages import NodeDescribed, SiteLocked, SiteUnlocked, utc_now
from deploykit.messages.statement import SignedStatement
from deploykit.names import NodeName, SiteName
from deploykit.operations.deploy import load_report_trust
from deploykit.operations.keychoice import asking_key
from deploykit.operations.lockdrafts import DEFAULT_LOCK, lock_message, unlock_message
from deploykit.operations.nodes import DISCOVERY_TIMEOUT, WHY_NOBODY, FoundNodes, find_nodes
from deploykit.settings.node import Settings
from deploykit.trust.agentkey import needs_touch
from deploykit.trust.check import Trust
from deploykit.trust.lockrules import judge
from deploykit.trust.locks import KnownStatement, next_serial
from deploykit.trust.signature import BodySigner, sign
from deploykit.trust.statements import statement_of
from deploykit.wire import encode

#: Seconds between two looks at which nodes hold a statement: nodes answer a question after a moment.
_LOOKS: Final = (0.2, 0.5, 1.0, 2.0)


@attrs.frozen(kw_only=True, slots=True)
class LockOutcome:
    """What became of a statement.

    Args:
        message: what was published; None where there was nothing to unlock.
        holds: the nodes with the site that show it.
        lacks: those that do not: they were silent, or show another statement.
        others: locks that are in force beside it, or in spite of it.
        notes: lines for the person.
        doubted: nothing was lifted, and nodes show a statement that does not count on this machine. It may there.
    """

    message: SiteLocked | SiteUnlocked | None
    holds: tuple[NodeName, ...] = ()
    lacks: tuple[NodeName, ...] = ()
    others: tuple[KnownStatement, ...] = ()
    notes: tuple[str, ...] = ()
    doubted: bool = False

    @property
    def exit_code(self) -> int:
        """0 where all nodes that were heard hold it; 1 where one does not, none was heard, or nobody knows."""
        if self.doubted:
            return 1
        unlocks = self.message is None or isinstance(self.message, SiteUnlocked)
        if self.lacks or (unlocks and self.others):
            return 1
        return 0 if self.message is None or self.holds else 1


def not_locked(site: str, *, doubted: bool) -> str:
    """Return what to tell a person where nothing was lifted; `doubted` as of `LockOutcome`."""
    if doubted:
        return f"nothing was lifted: nodes show a statement on {site} that does not count here, and may count there"
    return f"{site} is not locked"


@attrs.frozen(kw_only=True, slots=True)
class LockLook:
    """What nodes show of a site's lock: all that somebody needs who makes the next statement.

    Args:
        serial: what the next statement must have at least.
        lifted: the lock that an unlock lifts; None where there is none.
        lines: each lock that is in force, and what does not count.
        nodes: those with the site that answered.
    """

    serial: int
    lifted: KnownStatement | None
    lines: tuple[str, ...] = ()
    nodes: tuple[NodeName, ...] = ()


def look_at_lock(
    settings: Settings,
    bus: Bus,
    key: BodySigner,
    site: SiteName,
    *,
    timeout: float = DISCOVERY_TIMEOUT,
    trust: Trust | None = None,
) -> LockLook:
    """Ask the nodes, and return what they show of a site's lock. Arguments and errors: as for `lock_site`."""
    now = utc_now()
    believes = trust or load_report_trust(settings)
    found = _ask(settings, bus, site, asking_key(settings, key), believes, timeout)
    view = view_locks(found.nodes, believes, now)
    shown = view.of(site)
    return LockLook(
        serial=_serial(view, site, now),
        lifted=_lifted(shown, now),
        lines=shown.lines if shown is not None else (),
        nodes=_having(found, site),
    )


def lock_site(
    settings: Settings,
    bus: Bus,
    key: BodySigner,
    site: SiteName,
    reason: str,
    *,
    until: datetime | None = None,
    since: datetime | None = None,
    allow_rollback: bool = True,
    timeout: float = DISCOVERY_TIMEOUT,
    trust: Trust | None = None,
    on_node: Callable[[NodeDescribed], object] | None = None,
    holder: str | None = None,
) -> LockOutcome:
    """Publish a lock of a site, signed, and return which nodes hold it.

    Args:
        settings: of this machine.
        bus: connected.
        key: signs it; its principals hold the lock. Where a person must touch it, the settings' key asks the nodes.
        site: the site.
        reason: for everybody whom it keeps from deploying.
        until: when it ends by itself; 24 hours after it begins by default.
        since: when it begins; at once by default.
        allow_rollback: nodes may still go back to their previous release.
        timeout: seconds to wait for nodes, twice.
        trust: judges answers and statements; the settings' when None.
        on_node: called with each node that answers.
        holder: who locks, in words for a person; whoever runs this process when None.

    Raises:
        UsageError: no reason, or times that no lock may have.
        PolicyRefused: no answer could be believed.
        KeyFileError: a key cannot be used.
        BusError: the broker does not take it.
    """
    now = utc_now()
    draft = lock_message(site, reason, now, until=until, since=since, allow_rollback=allow_rollback, holder=holder)
    believes = trust or load_report_trust(settings)
    asker = asking_key(settings, key)
    found = _ask(settings, bus, site, asker, believes, timeout, on_node)
    view = view_locks(found.nodes, believes, now)
    message = attrs.evolve(draft, serial=_serial(view, site, now))
    return _publish(settings, bus, key, believes, message, found, timeout)


def unlock_site(
    settings: Settings,
    bus: Bus,
    key: BodySigner,
    site: SiteName,
    reason: str = "",
    *,
    timeout: float = DISCOVERY_TIMEOUT,
    trust: Trust | None = None,
    on_node: Callable[[NodeDescribed], object] | None = None,
    holder: str | None = None,
    may_lift: Callable[[KnownStatement], object] = lambda _: None,
) -> LockOutcome:
    """Publish that a site's lock is lifted, signed, and return which nodes hold that; nothing where there is no lock.

    Arguments and errors: as for `lock_site`.

    Args:
        may_lift: is called with each lock that is in force, or the one to come, before anything is published; it raises
            where this one must stay.

    Raises:
        NobodyMatches: no node with the site answered, so nobody knows whether it is locked.
    """
    now = utc_now()
    believes = trust or load_report_trust(settings)
    asker = asking_key(settings, key)
    found = _ask(settings, bus, site, asker, believes, timeout, on_node)
    if not _having(found, site):
        raise NobodyMatches(f"no node with site {site} answered, so nothing is known of its lock", WHY_NOBODY)
    view = view_locks(found.nodes, believes, now)
    shown = view.of(site)
    lock = _lifted(shown, now)
    if lock is None:
        doubts = shown.doubts if shown is not None else ()
        return LockOutcome(message=None, notes=(*found.notes, *doubts), doubted=bool(doubts))
    for each in (lock, *(shown.in_force[1:] if shown is not None else ())):
        may_lift(each)
    message = unlock_message(site, reason, now, locked=lock.signed, serial=_serial(view, site, now), holder=holder)
    return _publish(settings, bus, key, believes, message, found, timeout)


def _ask(
    settings: Settings,
    bus: Bus,
    site: SiteName,
    key: BodySigner,
    trust: Trust,
    timeout: float,
    on_node: Callable[[NodeDescribed], object] | None = None,
    names: tuple[NodeName, ...] | None = None,
) -> FoundNodes:
    chosen = Selection(everybody=True) if names is None else Selection(identities=tuple(map(str, names)))
    return find_nodes(
        settings,
        bus,
        chosen,
        details=("sites",),
        site=site,
        timeout=timeout,
        key=key,
        trust=trust,
        on_node=on_node,
    )


def _having(found: FoundNodes, site: SiteName) -> tuple[NodeName, ...]:
    return tuple(node.node for node in found.nodes if any(state.site == site for state in node.sites))


def _serial(view: LockView, site: SiteName, now: datetime) -> int:
    counting = view.book.counting(site, now)
    return next_serial(counting[0].message.serial if counting else None, now)


def _lifted(shown: SiteLocks | None, now: datetime) -> KnownStatement | None:
    """Return the lock that an unlock lifts: the highest in force, or one that is still to come."""
    if shown is None:
        return None
    if shown.in_force:
        return shown.in_force[0]
    newest = shown.newest
    coming = newest is not None and isinstance(newest.message, SiteLocked) and newest.message.until > now
    return newest if coming else None


def _publish(
    settings: Settings,
    bus: Bus,
    key: BodySigner,
    trust: Trust,
    message: SiteLocked | SiteUnlocked,
    found: FoundNodes,
    timeout: float,
) -> LockOutcome:
    """Publish a statement; ask the nodes that have the site until all hold it, or time is over."""
    frame = sign(encode(message), key)
    statement = statement_of(frame)
    notes = [*found.notes]
    try:
        judge(statement, trust, utc_now())
    except KeyFileError:
        raise
    except (MessageError, PolicyRefused) as error:
        notes.append(f"by this machine's settings it does not count: {error}")
    bus.publish(settings.topics.deploy, frame, timeout=settings.broker.connect_timeout)
    names = _having(found, message.site)
    if not names:
        notes.append(f"no node with site {message.site} answered: ask again with `deploykit nodes`")
        return LockOutcome(message=message, notes=tuple(notes))
    deadline = time.monotonic() + timeout
    heard = _looked(settings, bus, asking_key(settings, key), trust, message, names, statement, deadline)
    holds = tuple(node.node for node in heard if shows(node, message.site, statement))
    view = view_locks(heard, trust, utc_now()).of(message.site)
    others = tuple(lock for lock in view.in_force if lock.signed != statement) if view is not None else ()
    return LockOutcome(
        message=message,
        holds=holds,
        lacks=tuple(name for name in names if name not in holds),
        others=others,
        notes=tuple(dict.fromkeys((*notes, *(view.doubts if view is not None else ())))),
    )


def _looked(
    settings: Settings,
    bus: Bus,
    key: BodySigner,
    trust: Trust,
    message: SiteLocked | SiteUnlocked,
    names: tuple[NodeName, ...],
    statement: SignedStatement,
    deadline: float,
) -> tuple[NodeDescribed, ...]:
    """Return what nodes show once all of them hold a statement, or when time is over."""
    looks = iter(_LOOKS)
    once = needs_touch(key)  # for each question a person touches it: one, after a moment, must do
    if once:
        time.sleep(min(_LOOKS[-1], max(0.0, deadline - time.monotonic())))  # nothing tells that nodes have taken it in
    while True:
        left = max(1.0, deadline - time.monotonic())
        heard = _ask(settings, bus, message.site, key, trust, left, names=names).nodes
        holding = {node.node for node in heard if shows(node, message.site, statement)}
        pause = next(looks, _LOOKS[-1])
        if once or holding.issuperset(names) or time.monotonic() + pause >= deadline:
            return heard
        time.sleep(pause)  # nodes say nothing when they have taken it in, so there is nothing to wait for


__all__ = ["DEFAULT_LOCK", "LockLook", "LockOutcome", "lock_site", "look_at_lock", "unlock_site"]
