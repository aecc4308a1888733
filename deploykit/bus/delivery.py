"""What a handler gets of a message, and what this process notes about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Final

import attrs

from deploykit.bus.ports import BrokerConnection
from deploykit.bus.stomp.frames import Received
from deploykit.bus.verdicts import Verdict
from deploykit.messages.base import Message
from deploykit.wire.codec import decode

#: On a message that only keeps the way open (`deploykit.bus.keepalive`); no handler sees it.
KEEPALIVE_HEADER: Final = "deploykit-keepalive"


@attrs.frozen(kw_only=True, slots=True)
class Delivery:
    """One message as handed to a handler.

    `attempt` counts from 1 in this process; `redelivered` says that the broker has given it out before.
    `id` is the publisher's (header `deploykit-id`), empty where there is none.
    `message` is the body, decoded when it is first asked for.
    """

    destination: str
    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=False)
    message_id: str
    id: str
    attempt: int
    redelivered: bool
    epoch: int

    @cached_property
    def message(self) -> Message | None:
        """The message in the body; `Unknown` for a type we do not know, None for a keepalive.

        Raises:
            MessageError: the body is no message. Reject the delivery.
        """
        return decode(self.headers, self.body, self.destination)


Handler = Callable[[Delivery], Verdict | None]


class Item:
    """One message in this process: what came, over which connection, and what is already decided about it."""

    __slots__ = ("attempt", "claimed", "connection", "decided", "frame", "gone_back", "key")

    def __init__(self, frame: Received, connection: BrokerConnection) -> None:
        self.frame = frame
        self.connection = connection
        self.attempt = 0
        #: Identity across deliveries: the id and the body's hash; None: it has no id.
        self.key: tuple[str, int] | None = None
        #: The final verdict, once there is one; then only the settling is tried again.
        self.decided: Verdict | None = None
        #: We have claimed its id, and must mark it done.
        self.claimed = False
        #: It was given back to the broker: it comes again, and is not finished.
        self.gone_back = False
