"""The original's keepalive: an empty line sent to listed topics and queues, so that nothing on the way falls asleep.

A bus with `settings.keepalive` sends it while it runs, so every daemon can; `deploykit keepalive` sends it from cron or
as a daemon of its own. The message expires soon where the broker knows expiry, so that a queue that nobody reads does
not fill. Subscribers of this library never see it; the original's ignore its body.
"""

from __future__ import annotations

import contextlib
import logging
from functools import partial
from typing import Final

from deploykit.bus.delivery import KEEPALIVE_HEADER
from deploykit.bus.ports import KeepaliveServices
from deploykit.errors import BusClosed, BusError, PublishError
from deploykit.wire.frame import Frame

logger = logging.getLogger(__name__)

#: The original's body, and a header by which this library knows to ignore it.
KEEPALIVE: Final = Frame({KEEPALIVE_HEADER: "true", "content-type": "text/plain"}, b"\n")


class Keeper:
    """Sends what `settings.keepalive` lists. It works on the supervisor's thread, so nothing here may wait."""

    def __init__(self, services: KeepaliveServices) -> None:
        self._services = services

    def begin(self) -> None:
        """Send the first round after one interval, and go on."""
        self._services.call_later(self._services.settings.keepalive_every, self._round)

    def _round(self) -> None:
        dialect, settings = self._services.dialect, self._services.settings
        with contextlib.suppress(BusClosed):
            for destination in settings.keepalive if dialect is not None else ():
                ttl = 2 * settings.keepalive_every if dialect is not None and dialect.ttl else None
                with contextlib.suppress(PublishError):  # no room: there is traffic enough
                    self._services.enqueue(
                        destination,
                        KEEPALIVE,
                        timeout=min(settings.keepalive_every, settings.publish_timeout),
                        persistent=False,
                        ttl=ttl,
                        done=partial(_log_failure, destination),
                    )
        self.begin()


def _log_failure(destination: str, problem: BusError | None) -> None:
    if problem is not None:
        logger.info("keepalive to %s: %s", destination, problem)
