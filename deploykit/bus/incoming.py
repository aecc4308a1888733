"""Where what a broker sends goes: messages to subscriptions, receipts and errors to those who wait for them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Final

from deploykit.bus.events import BrokerReportedError, Event
from deploykit.bus.ports import BrokerConnection
from deploykit.bus.stomp.frames import Received
from deploykit.bus.subscriptions import SubscriptionTable
from deploykit.bus.suspects import OUTLIVED
from deploykit.bus.unconfirmed import UnconfirmedPublishes
from deploykit.errors import PublishRefused

logger = logging.getLogger(__name__)

#: Receipt ids of DISCONNECT, and of the round trip by which a connection proves that it works.
GOODBYE: Final = "bye"
PROOF: Final = "proof"
#: Seconds for which an ERROR that names nothing is a reason why a message has no receipt.
_RECENT: Final = 60.0


class IncomingFrames:
    """The `FrameSink` of a bus. Only the supervisor's thread.

    Args:
        unconfirmed, subscriptions: who waits.
        present: returns the present connection.
        emit: takes events.
    """

    def __init__(
        self,
        unconfirmed: UnconfirmedPublishes,
        subscriptions: SubscriptionTable,
        *,
        present: Callable[[], BrokerConnection | None],
        emit: Callable[[Event], None],
    ) -> None:
        #: Monotonic time from which messages go out although not every subscription is confirmed.
        self.send_from = 0.0
        #: Whether the broker has confirmed our DISCONNECT.
        self.goodbye = False
        self._unconfirmed = unconfirmed
        self._subscriptions = subscriptions
        self._present = present
        self._emit = emit
        self._error = ""
        self._error_at = 0.0
        self._last_words = ("", 0, 0.0)

    def may_send(self) -> bool:
        """Return whether messages may go out already: what was subscribed to before comes first."""
        return monotonic() >= self.send_from or self._subscriptions.settled

    def recent_error(self, now: float) -> str:
        """Return the last ERROR that named nothing, if it came a short while ago; else nothing."""
        return self._error if now < self._error_at + _RECENT else ""

    def last_words(self, epoch: int, now: float) -> str:
        """Return what the broker reported just before it ended the connection of this epoch; else nothing."""
        shown, of, at = self._last_words
        return shown if of == epoch and now < at + OUTLIVED else ""

    def on_receipts(self, receipts: list[bytes]) -> None:
        """Take receipts of everything but messages."""
        connection = self._present()
        for receipt in receipts:
            if receipt == GOODBYE.encode():
                self.goodbye = True
            elif receipt == PROOF.encode():
                self._unconfirmed.proved()
            elif connection is not None:
                self._subscriptions.on_receipt(receipt.decode("ascii", "replace"), connection)

    def on_message(self, frame: Received) -> None:
        """Take a MESSAGE."""
        connection = self._present()
        if connection is not None:
            self._subscriptions.on_message(frame, connection)

    def on_error(self, frame: Received, shown: str) -> None:
        """Take an ERROR: find what it is about."""
        connection = self._present()
        if connection is None:
            return
        self._last_words = (shown, connection.epoch, monotonic())
        if self._subscriptions.on_error(frame, shown, connection, alone=not len(self._unconfirmed)):
            return
        receipt = frame.headers.get("receipt-id", "")
        problem = PublishRefused(f"{connection.broker} refused the message: {shown}", "look at the broker's log")
        if receipt and self._unconfirmed.refuse_receipt(receipt, problem):
            return
        self._error, self._error_at = shown, monotonic()
        logger.warning("%s: ERROR: %s", connection.broker, shown)
        self._emit(BrokerReportedError(broker=str(connection.broker), problem=shown))
