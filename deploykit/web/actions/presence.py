"""Who has a page open from which a site can be changed. Two people at once see each other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from deploykit.errors import ActionRefused, LedgerError
from deploykit.messages import one_line
from deploykit.web.actions.actionports import site_named
from deploykit.web.actions.ports import PresenceBoard
from deploykit.web.actions.shown import PersonPresent
from deploykit.web.viewer import Viewer

#: Characters of what somebody does.
_WHAT = 100
#: Sites and people of whom it is known who was there before.
_MOST = 10_000


class NotedPerson(Protocol):
    """Somebody who is there; `since`: seconds since 1970."""

    @property
    def name(self) -> str: ...

    @property
    def what(self) -> str: ...

    @property
    def since(self) -> float: ...


class PresenceKept(Protocol):
    """Notes who is where: `web.ledger.presence.PresenceLedger`."""

    def here(self, site: str, name: str, what: str) -> Sequence[NotedPerson]:
        """Note that somebody is there, and return who else is, of the last 90 seconds."""


class ConsolePresence(PresenceBoard):
    """See above.

    Args:
        kept: notes who is there, for all consoles of the database.
        announce: is called with a site where somebody came, or does something else than before.
    """

    def __init__(self, kept: PresenceKept, announce: Callable[[str], None] = lambda _: None) -> None:
        self._kept = kept
        self._announce = announce
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], str] = {}

    def here(self, viewer: Viewer, site: str, what: str) -> Sequence[PersonPresent]:
        """See `PresenceBoard`. A ledger that is away hides the others: it keeps nobody from working."""
        known = site_named(site)
        if not viewer.sees(known):
            raise ActionRefused(f"there is no site {known}", "see the list of sites", status=404)
        name, doing = viewer.name[:255], one_line(what, _WHAT)
        if not name or not viewer.may(site, "stage"):
            return ()
        try:
            others = self._kept.here(site, name, doing)
        except LedgerError:
            return ()
        if self._is_news(site, name, doing):
            self._announce(site)
        return tuple(
            PersonPresent(name=each.name, what=each.what, since=datetime.fromtimestamp(each.since, UTC))
            for each in others
        )

    def _is_news(self, site: str, name: str, what: str) -> bool:
        with self._lock:
            before = self._known.pop((site, name), None)
            self._known[site, name] = what
            while len(self._known) > _MOST:
                del self._known[next(iter(self._known))]
        return before != what


__all__ = ["ConsolePresence", "NotedPerson", "PresenceKept"]
