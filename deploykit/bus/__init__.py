"""The message bus: publish and subscribe over STOMP, on brokers and networks as they are.

Loading this package does not load stomp.py; starting a `Bus` does.
"""

from __future__ import annotations

from deploykit.bus.client import Bus
from deploykit.bus.delivery import Delivery, Handler
from deploykit.bus.events import BusState, Counters, Event
from deploykit.bus.ports import Ids
from deploykit.bus.subscription import Subscription
from deploykit.bus.verdicts import Ack, Reject, Retry, Verdict

__all__ = [
    "Bus",
    "Delivery",
    "Handler",
    "Subscription",
    "Ack",
    "Retry",
    "Reject",
    "Verdict",
    "Event",
    "BusState",
    "Counters",
    "Ids",
]
