"""UNSUBSCRIBEs on the present connection: who waits for their receipts, and what still comes for what was ended."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from concurrent.futures import Future

from deploykit.bus.ports import BrokerConnection
from deploykit.bus.stomp.compile import SubscriptionSpec
from deploykit.errors import BusError


class Unsubscribes:
    """The subscriptions that were ended on the present connection."""

    def __init__(self) -> None:
        self._waiting: dict[str, Future[None]] = {}  # by receipt
        self._ended: dict[str, bool] = {}  # subscription id -> whether what still comes for it must go back
        self._numbers = itertools.count(1)

    def send(
        self, connection: BrokerConnection, spec: SubscriptionSpec, headers: Mapping[str, str], *, goes_back: bool
    ) -> tuple[str, Future[None]]:
        """Send UNSUBSCRIBE; return its receipt id, and the future of the receipt.

        Args:
            connection: the present one.
            spec: the subscription.
            headers: what deletes a durable subscription there; empty where it is to be kept.
            goes_back: what still comes for it must go back to the broker.
        """
        self._ended[spec.id] = goes_back
        done: Future[None] = Future()
        connection.resume()  # what still comes is not kept
        receipt = f"end-{next(self._numbers)}"
        self._waiting[receipt] = done
        if headers and connection.dialect.durable_end_after:
            connection.unsubscribe(spec.id, {}, f"{receipt}-first")
        connection.unsubscribe(spec.id, headers, receipt)
        return receipt, done

    def goes_back(self, subscription: str) -> bool:
        """Return whether what comes for an ended subscription must go back to the broker."""
        return self._ended.get(subscription, True)

    def forget(self, receipt: str) -> None:
        """Wait for this receipt no more."""
        self._waiting.pop(receipt, None)

    def confirmed(self, receipt: str) -> bool:
        """Take a receipt; return whether it was waited for."""
        done = self._waiting.pop(receipt, None)
        if done is not None:
            done.set_result(None)
        return done is not None

    def refused(self, receipt: str, error: BusError) -> bool:
        """Take an ERROR for this receipt id; return whether it was waited for."""
        done = self._waiting.pop(receipt, None)
        if done is not None:
            done.set_exception(error)
        return done is not None

    def begin(self) -> None:
        """Forget what was ended on the connection before."""
        self._ended.clear()

    def cancel(self) -> None:
        """End all waiting: the connection is over."""
        for receipt in list(self._waiting):
            if (done := self._waiting.pop(receipt, None)) is not None:
                done.cancel()
