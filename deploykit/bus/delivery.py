"""What a handler gets, and what the parts of a consumer say to each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from deploykit.bus.events import Counters, Event
from deploykit.bus.verdicts import Verdict
from deploykit.ids import Claim
from deploykit.messages.base import Message
from deploykit.wire.codec import decode
from deploykit.wire.frame import Frame

if TYPE_CHECKING:
    from deploykit.bus.stomp.connection import Connection
    from deploykit.bus.stomp.frames import Received


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


class Ids(Protocol):
    """The part of `deploykit.ids.IdStore` that settles duplicates."""

    def claim(self, key: str, id: str, digest: bytes, now: datetime) -> Claim:
        """Claim an id before acting."""

    def done(self, key: str, id: str, reply: bytes, now: datetime) -> None:
        """Mark it handled to the end."""

    def locked(self, key: str, id: str, *, timeout: float = 0.0) -> AbstractContextManager[None]:
        """Keep everybody else from handling it meanwhile; LockBusy where somebody does."""


class Host(Protocol):
    """What a subscription needs of its bus."""

    counters: Counters

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after a while, on the supervisor's thread."""

    def dead_letter(self, frame: Frame) -> None:
        """Publish to the dead letters; return when confirmed, raise BusError otherwise."""

    def send_again(self, destination: str, frame: Frame) -> None:
        """Publish to a queue; return when confirmed, raise BusError otherwise."""

    def tell(self, event: Event) -> None:
        """Hand an event to the embedding program."""


class Item:
    """One message in this process: what came, over which connection, and what is already decided about it."""

    __slots__ = ("attempt", "claimed", "connection", "decided", "frame", "gone_back", "key")

    def __init__(self, frame: Received, connection: Connection) -> None:
        self.frame = frame
        self.connection = connection
        self.attempt = 0
        #: Identity across deliveries: the id and the body's hash; None: it has no id.
        self.key: tuple[str, int] | None = None
        #: Set once the handler has spoken for good, so that only the settling is tried again.
        self.decided: Verdict | None = None
        #: It is ours in the store of ids, and has to be marked done there.
        self.claimed = False
        #: It was given back to the broker, so it will come again and is not finished.
        self.gone_back = False
