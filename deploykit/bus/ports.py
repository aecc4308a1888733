"""What the table of subscriptions needs of those who connect.

Some brokers do not bound what they deliver to a subscription, and some that were asked to do not. Then nothing but not
reading bounds what is in memory, and what is not read holds back everything behind it: receipts of messages that
handlers publish, answers to other subscriptions, heart-beats. So on such brokers

* the bus's connection carries everything but deliveries, and is always read;
* each subscription has a connection of its own, a `Feed`, to the same broker. It lives no longer than the bus's
  connection, and is made anew by itself when it alone is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from deploykit.bus.stomp.connection import Connection
    from deploykit.bus.subscription import Subscription
    from deploykit.bus.subscriptions import SubscriptionTable


class Line(Protocol):
    """What the roster needs of its supervisor."""

    @property
    def connection(self) -> Connection | None:
        """The present connection."""

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after a while, on the supervisor's thread."""

    def reconnect(self, reason: str) -> None:
        """Give the present connection up, and make a new one."""

    def news(self) -> None:
        """Wake whoever waits for a change."""

    def feed(self, subscription: Subscription, connection: Connection) -> Feed:
        """Begin to connect to the same broker once more, for this subscription alone."""


class Feed(Protocol):
    """A subscription's own connection: a supervisor that has nothing else to do."""

    roster: SubscriptionTable

    def end(self, until: float) -> None:
        """Send what is left, say goodbye, and wait for the end; not past a monotonic time."""

    def drain(self, until: float) -> None:
        """The same, without waiting."""

    def cut(self) -> None:
        """End at once, without a word to the broker."""

    def abandon(self) -> None:
        """Free what this process holds, in a forked child."""
