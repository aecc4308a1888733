"""The bus of one service: its own, or one that it shares with other services and with the program around them.

Rules:

* An own bus is started and stopped with the service.
* A shared bus was started by somebody else and goes on: of it, only the service's own subscriptions are ended.
* What a service had in hand and did not finish goes back to the broker, either way.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Unpack

from deploykit.bus import Bus, Handler, Subscription
from deploykit.bus.events import BusState, Event
from deploykit.bus.inspection import Pulse, thread_that_ended
from deploykit.bus.listening import SubscribeOptions
from deploykit.settings.bus import BusSettings

#: Seconds for which the bus's own thread may be silent before it counts as stuck.
MOST_SILENCE: Final = 20.0


class BusLink:
    """The bus of one service.

    Args:
        settings: of a bus of its own.
        bus: a started bus that is shared; None: make one.
        client_id: of a bus of its own, where the settings have none.
        on_event: called with each event of the bus.
    """

    def __init__(
        self,
        settings: BusSettings,
        *,
        bus: Bus | None = None,
        client_id: str = "",
        on_event: Callable[[Event], object] | None = None,
    ) -> None:
        self.shared = bus is not None
        self.bus = Bus(settings, on_event=on_event, client_id=client_id) if bus is None else bus
        self._on_event = on_event
        self._remove: Callable[[], None] = lambda: None
        self._subscriptions: list[Subscription] = []
        self._pulse = Pulse(self.bus)

    def start(self) -> None:
        """Start an own bus; listen to the events of a shared one."""
        if not self.shared:
            self.bus.start()
        elif self._on_event is not None:
            self._remove = self.bus.add_listener(self._on_event)

    def subscribe(self, destination: str, handler: Handler, **options: Unpack[SubscribeOptions]) -> Subscription:
        """Subscribe as `Bus.subscribe` does; `stop` ends the subscription."""
        subscription = self.bus.subscribe(destination, handler, **options)
        self._subscriptions.append(subscription)
        return subscription

    def stop(self, timeout: float) -> None:
        """Stop an own bus; of a shared one, end the service's subscriptions and what it listens to."""
        if not self.shared:
            self.bus.stop(timeout)
            return
        self._remove()
        end = time.monotonic() + timeout
        for subscription in self._subscriptions:
            subscription.stop()  # all at once: none takes another message while the others are waited for
        for subscription in self._subscriptions:
            subscription.unsubscribe(timeout=max(0.0, end - time.monotonic()))
        self._subscriptions.clear()

    @property
    def connected(self) -> bool:
        """Whether the bus has a connection."""
        return self.bus.state is BusState.CONNECTED

    @property
    def failure(self) -> str:
        """Why the bus will never work again; empty while it may."""
        if ended := thread_that_ended(self.bus):
            return f"a thread of the bus has ended: {ended}"
        return "the bus was stopped" if self.bus.state is BusState.CLOSED else ""

    def stuck(self, now: float) -> str:
        """Return what does not go on; empty while all does. Call it now and then: it asks, and looks for the answer."""
        silence = self._pulse.silence(now)
        return f"the bus's own thread has not answered for {silence:.0f} s" if silence > MOST_SILENCE else ""
