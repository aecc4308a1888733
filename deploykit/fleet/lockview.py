"""What nodes show of the locks of their sites: which statement decides, who is behind, what does not count. Pure.

Rules:

* What nodes show is judged here again, each different statement once: a node may show what only it believes.
* A node is behind where it shows an older statement than the one that decides, or none while that is in force.
* Publishing the newer again is harmless: nodes judge it by themselves, and copies change nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from concurrent.futures import wait
from datetime import datetime

import attrs

from deploykit.bus import Bus
from deploykit.errors import BusError, KeyFileError, MessageError, PolicyRefused
from deploykit.messages import NodeDescribed, one_line
from deploykit.messages.statement import SignedStatement
from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName, SiteName
from deploykit.trust.check import Trust
from deploykit.trust.keyformat import fingerprint
from deploykit.trust.locks import KnownStatement, LockBook
from deploykit.trust.signature import decode_headers
from deploykit.trust.sshsig import decode_blob
from deploykit.trust.statements import frame_again, frame_of
from deploykit.wire import decode


@attrs.frozen(kw_only=True, slots=True)
class SiteLocks:
    """What nodes show of one site's lock.

    Args:
        site: the site.
        newest: the statement that decides; None where none counts.
        in_force: the locks that are in force, the highest first.
        behind: nodes that show an older statement, or none, by name.
        doubts: what nodes show and what does not count here, a line each.
    """

    site: SiteName
    newest: KnownStatement | None
    in_force: tuple[KnownStatement, ...] = ()
    behind: tuple[NodeName, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """A line for each lock that is in force, and for each statement that does not count here."""
        return (*(f"{self.site} is {lock}" for lock in self.in_force), *self.doubts)


@attrs.frozen(kw_only=True, slots=True)
class LockView:
    """What nodes show of the locks of all their sites.

    Args:
        book: the statements that count.
        sites: by name, those alone of which something is shown.
    """

    book: LockBook
    sites: tuple[SiteLocks, ...] = ()

    def of(self, site: SiteName) -> SiteLocks | None:
        """Return what is shown of a site."""
        return next((each for each in self.sites if each.site == site), None)

    def publish_newer(self, bus: Bus, topics: TopicMap, *, within: float = 0.0) -> None:
        """Publish the deciding statement of each site on which a node is behind.

        Args:
            bus: connected.
            topics: where statements go.
            within: seconds to wait until the broker has them all; whoever looks next publishes what it has not.
        """
        sent = []
        for each in self.sites:
            if each.behind and each.newest is not None:
                with contextlib.suppress(BusError):
                    sent.append(bus.publish_nowait(topics.deploy, frame_again(each.newest.signed)))
        if within > 0:
            wait(sent, within)


def view_locks(nodes: Iterable[NodeDescribed], trust: Trust, now: datetime) -> LockView:
    """Return what nodes show of the locks of their sites.

    Args:
        nodes: as they described themselves.
        trust: judges the statements.
        now: aware.

    Raises:
        KeyFileError: the trusted files cannot be read.
    """
    book = LockBook(trust)
    judged: dict[tuple[str, str], KnownStatement | str] = {}
    shown: dict[SiteName, dict[NodeName, SignedStatement | None]] = {}
    for node in nodes:
        for state in node.sites:
            shown.setdefault(state.site, {})[node.node] = state.lock
            if state.lock is not None and _name(state.lock) not in judged:
                judged[_name(state.lock)] = _judged(book, state.site, state.lock, now)
    sites = []
    for site, by_node in sorted(shown.items()):
        if any(by_node.values()):
            newest, in_force = book.newest(site, now), book.in_force(site, now)
            sites.append(
                SiteLocks(
                    site=site,
                    newest=newest,
                    in_force=in_force,
                    behind=tuple(sorted(_behind(newest, bool(in_force), by_node, judged))),
                    doubts=tuple(dict.fromkeys(_doubts(site, by_node, judged))),
                )
            )
    return LockView(book=book, sites=tuple(sites))


def shows(node: NodeDescribed, site: SiteName, statement: SignedStatement) -> bool | None:
    """Return whether a node shows this very statement for a site; None where it does not have the site."""
    states = [state for state in node.sites if state.site == site]
    if not states:
        return None
    return any(state.lock is not None and _name(state.lock) == _name(statement) for state in states)


def _judged(book: LockBook, site: SiteName, signed: SignedStatement, now: datetime) -> KnownStatement | str:
    try:
        known = book.add(signed, now).statement
    except KeyFileError:
        raise
    except (MessageError, PolicyRefused) as error:
        return error.problem
    return known if known.site == site else f"it is of site {known.site}"


def _behind(
    newest: KnownStatement | None,
    in_force: bool,
    by_node: dict[NodeName, SignedStatement | None],
    judged: dict[tuple[str, str], KnownStatement | str],
) -> Iterator[NodeName]:
    if newest is None:
        return
    for node, signed in by_node.items():
        known = judged[_name(signed)] if signed is not None else None
        if isinstance(known, KnownStatement):
            if known.rank < newest.rank:
                yield node
        elif known is not None or in_force:
            yield node


def _doubts(
    site: SiteName,
    by_node: dict[NodeName, SignedStatement | None],
    judged: dict[tuple[str, str], KnownStatement | str],
) -> Iterator[str]:
    for node, signed in by_node.items():
        problem = judged[_name(signed)] if signed is not None else None
        if signed is not None and isinstance(problem, str):
            yield f"{node} shows a statement on site {site} that does not count here ({summary_of(signed)}): {problem}"


def summary_of(signed: SignedStatement) -> str:
    """Return what a statement says of itself, and which keys it names; nothing of it is verified."""
    try:
        frame = frame_of(signed)
        message = decode(frame.headers, frame.body)
        keys = ", ".join(fingerprint(decode_blob(blob).key) for blob in decode_headers(signed.signature))
    except MessageError:
        return "unreadable"
    return one_line(f"{message.summary if message is not None else 'empty'}; key {keys}")


def _name(signed: SignedStatement) -> tuple[str, str]:
    return signed.body, signed.signature


__all__ = ["LockView", "SiteLocks", "shows", "summary_of", "view_locks"]
