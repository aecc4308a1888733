"""From deliveries to messages: what `Bus.listen` puts between a subscription and a handler of messages.

Rules:

* each delivery is decoded once;
* bytes that are no message are rejected, and the handler does not see them;
* a keepalive, and a message of a class that was not asked for, is acknowledged without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol, TypedDict, TypeVar, Unpack

from deploykit.bus.delivery import Delivery, Handler
from deploykit.bus.ports import Ids
from deploykit.bus.stomp.compile import OnFailure
from deploykit.bus.verdicts import Reject, Verdict
from deploykit.errors import MessageError, UsageError
from deploykit.messages.base import Message
from deploykit.messages.topics import TopicMap, topics_of_class

MessageT = TypeVar("MessageT", bound=Message)

#: Takes a message and the delivery it came in; returns or raises a verdict, None is `Ack`.
MessageHandler = Callable[[MessageT, Delivery], Verdict | None]


class SubscribeOptions(TypedDict, total=False):
    """The options of `Bus.subscribe`, for calls that hand them on."""

    durable: str | None
    prefetch: int
    on_failure: OnFailure
    workers: int
    max_attempts: int
    selector: str | None
    ids: Ids | None


def topics_of(
    kinds: type[Message] | tuple[type[Message], ...], topics: TopicMap, *, durable: str | None = None
) -> tuple[str, ...]:
    """Return the destinations of all messages of some classes, each once.

    Raises:
        UsageError: `durable` is given, and there are several.
    """
    classes = kinds if isinstance(kinds, tuple) else (kinds,)
    found = tuple(dict.fromkeys(name for kind in classes for name in topics_of_class(kind, topics)))
    if durable is not None and len(found) > 1:
        raise UsageError(
            f"durable={durable!r} for messages of {len(found)} topics",
            "call listen() for each topic, with a durable name of its own",
        )
    return found


def decoding(kinds: type[MessageT] | tuple[type[MessageT], ...], handler: MessageHandler[MessageT]) -> Handler:
    """Return a handler of deliveries that gives `handler` the messages of some classes."""

    def handle(delivery: Delivery) -> Verdict | None:
        try:
            message = delivery.message
        except MessageError as error:
            return Reject(str(error))
        if not isinstance(message, kinds):
            return None
        return handler(message, delivery)

    return handle


class EndableSubscription(Protocol):
    """A subscription that can be ended."""

    def unsubscribe(self) -> None:
        """End it."""


SubscriptionT_co = TypeVar("SubscriptionT_co", bound=EndableSubscription, covariant=True)


class Subscribe(Protocol[SubscriptionT_co]):
    """`Bus.subscribe`, of whatever kind the bus is."""

    def __call__(self, destination: str, handler: Handler, **options: Unpack[SubscribeOptions]) -> SubscriptionT_co: ...


def listen_to(
    subscribe: Subscribe[SubscriptionT_co],
    kinds: type[MessageT] | tuple[type[MessageT], ...],
    handler: MessageHandler[MessageT],
    topics: TopicMap,
    **options: Unpack[SubscribeOptions],
) -> tuple[SubscriptionT_co, ...]:
    """Subscribe to all topics of some classes, or to none: where one is refused, those made before end."""
    destinations = topics_of(kinds, topics, durable=options.get("durable"))
    handle = decoding(kinds, handler)
    made = []
    with ExitStack() as undo:
        for destination in destinations:
            made.append(subscribe(destination, handle, **options))
            undo.callback(made[-1].unsubscribe)
        undo.pop_all()
    return tuple(made)
