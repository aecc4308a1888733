"""Whether what the console shows can be relied on: what its threads found, in one place. Use it from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime

import attrs

from deploykit.messages import one_line
from deploykit.web.projection.views import ProjectionHealth


class FeedHealth:
    """What is known of the connection, the database and the messages.

    Args:
        now: the wall clock, aware UTC.
        unverified: no keys are configured.
        on_change: called after what a page shows at its head has changed; in the thread that changed it.
    """

    def __init__(
        self, now: Callable[[], datetime], *, unverified: bool = False, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._lock = threading.Lock()
        self._now = now
        self._on_change = on_change
        self._health = ProjectionHealth(away_since=now(), reason="not connected yet", unverified=unverified)
        #: Why nodes cannot be asked, and why the database cannot be used; empty while they can.
        self.cannot_ask = ""
        self.cannot_keep = ""

    @property
    def shown(self) -> ProjectionHealth:
        """What pages show."""
        return self._health

    def connected(self) -> None:
        """Note that a broker accepted us: from now on every message is heard, earlier ones may be missing."""
        self._change(connected=True, away_since=None, reason="", rebuilding=True, complete_since=self._now())

    def lost(self, reason: str) -> None:
        """Note that there is no connection, and why."""
        since = self._health.away_since or self._now()
        self._change(connected=False, away_since=since, reason=one_line(reason, 300), rebuilding=False)

    def missed(self) -> None:
        """Note that something was not kept: nodes are to be asked again. Without a connection they are anyway."""
        if self._health.connected:
            self._change(rebuilding=True, complete_since=self._now())

    def asked(self, at: datetime, answered: int) -> None:
        """Note an answered question to all nodes."""
        self.cannot_ask = ""
        self._change(rebuilding=False, asked=at, answered=answered)

    def not_asked(self, why: str) -> None:
        """Note that nodes cannot be asked: what they say by themselves is all there is."""
        self.cannot_ask = one_line(why, 300)
        self._change(rebuilding=False)

    def kept(self) -> None:
        """Note that the database takes messages."""
        self.cannot_keep = ""

    def not_kept(self, why: str) -> None:
        """Note that the database takes none now."""
        self.cannot_keep = one_line(why, 300)

    def distrusted(self, why: str, *, tell: bool = True) -> None:
        """Count a message that is not shown.

        Args:
            tell: open pages; a flood of such messages must not reload them all the time.
        """
        with self._lock:
            count = self._health.distrusted + 1
            at = self._now()
            self._health = attrs.evolve(self._health, distrusted=count, distrust=one_line(why, 300), distrusted_at=at)
        if tell:
            self._on_change()

    def dropped(self) -> None:
        """Count a message that came too fast."""
        with self._lock:
            self._health = attrs.evolve(self._health, dropped=self._health.dropped + 1)

    def _change(self, **changes: object) -> None:
        with self._lock:
            before = self._health
            self._health = attrs.evolve(before, **changes)  # type: ignore[arg-type]  # fields of the class, checked by it
            same = self._health == before
        if not same:
            self._on_change()


__all__ = ["FeedHealth"]
