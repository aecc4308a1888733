"""What brokers do differently, as data.

`DIALECTS` is the only place where a broker's ways are written down; `compile` reads it, docs/brokers.md's table is
made from it, and a test keeps the two equal. A broker we do not know (`generic`) gets the smallest promise: queues,
topics, acknowledgements.

Sources: facts in the brokers' own documentation and sources, and the conformance suite (tests/integration), which runs
against RabbitMQ 3.10, ActiveMQ Classic 5.17 and the embedded broker. Artemis is written from its documentation only.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

import attrs

_NONE: Final[Mapping[str, str]] = MappingProxyType({})


@attrs.frozen(kw_only=True, slots=True)
class Dialect:
    """One kind of broker.

    Args:
        name, title: short name; name for people.
        servers: how its `server` header begins (lower case).
        verified: the version the conformance suite ran against; empty when written from documentation only.
        escapes_always: headers are escaped on 1.0 too: (by it, so we unescape; towards it, so we escape).
        encode_slash: a slash inside a queue's or topic's name has to be `%2F`.
        prefixes: destinations that begin like this are understood; all are when empty.
        below: what stands, after a name and a dot, for all topics below it in a subscription; empty: there is no such.
        composite: characters that would turn a destination into several.
        options: what ends a name there and begins options; such brokers also trim names.
        typed: `/queue/` and `/topic/` are our words only: header (SEND, SUBSCRIBE) -> values (queue, topic).
        prefetch: header that bounds unacknowledged deliveries; empty: none, then each subscription has a connection of
            its own, and what is here is bounded by not reading that.
        window: header that bounds them in bytes, which is a help and no bound in messages; empty: none.
        durable: headers of a durable topic subscription, `{name}` and `{topic}` are its names; None: it has none.
        durable_end: headers of the UNSUBSCRIBE that deletes it.
        durable_end_after: that UNSUBSCRIBE comes after a plain one, which ends the consumer.
        client_id: a durable subscription belongs to the CONNECT's client-id.
        persistent: headers that make a message survive the broker's restart.
        ttl: header and unit of a message's time to live; None: it has none.
        selectors: whether `selector` is honoured.
        nack: what NACK does.
        nack_headers: headers of a NACK that gives the message back.
        nack_keeps: headers of a NACK that puts the message into the broker's own dead letters; None: there is none.
        reserved: headers that a SEND must not carry here, beside those of STOMP.
        numeric: headers that it parses as numbers, beside those of `NUMERIC`.
        reply_to: how a `reply-to` that begins with a slash has to begin; any does when empty.
        gives_back_on_unsubscribe: what was delivered and not settled goes back to the queue at UNSUBSCRIBE; else it
            stays with the connection until that ends.
        ended: what the body of an ERROR begins with that is about a subscription which has ended, because a message or
            an acknowledgement crossed its UNSUBSCRIBE; the subscription's id is next, up to a quote or `@@`.
        beat_gap: its longest silence, in heart-beat intervals.
        receipt: what a receipt for a SEND proves, in words for the documentation.
        notes: for the documentation.
    """

    name: str
    title: str
    servers: tuple[str, ...]
    verified: str = ""
    escapes_always: tuple[bool, bool] = (False, False)
    encode_slash: bool = False
    prefixes: tuple[str, ...] = ()
    below: str = ""
    composite: str = ""
    options: str = ""
    typed: tuple[tuple[str, str], tuple[str, str]] | None = None
    prefetch: str = ""
    window: str = ""
    durable: Mapping[str, str] | None = None
    durable_end: Mapping[str, str] = _NONE
    durable_end_after: bool = False
    client_id: bool = False
    persistent: Mapping[str, str] = attrs.field(factory=lambda: MappingProxyType({"persistent": "true"}))
    ttl: tuple[str, Literal["relative", "absolute"]] | None = None
    selectors: bool = False
    nack: Literal["gives back", "dead-letters", "loses", "unknown"] = "unknown"
    nack_headers: Mapping[str, str] = _NONE
    nack_keeps: Mapping[str, str] | None = None
    reserved: frozenset[str] = frozenset()
    numeric: frozenset[str] = frozenset()
    reply_to: tuple[str, ...] = ()
    gives_back_on_unsubscribe: bool = False
    ended: tuple[str, ...] = ()
    beat_gap: float = 2.0
    receipt: str = "the broker took it"
    notes: tuple[str, ...] = ()


RABBITMQ: Final = Dialect(
    name="rabbitmq",
    title="RabbitMQ",
    servers=("rabbitmq",),
    verified="3.10.8",
    escapes_always=(True, True),
    encode_slash=True,
    prefixes=("/queue/", "/topic/", "/exchange/", "/amq/queue/", "/reply-queue/"),
    below="#",
    prefetch="prefetch-count",
    # With the topic in it: a queue, or another topic's subscription, of the same name must not become the same queue.
    durable={"durable": "true", "auto-delete": "false", "x-queue-name": "{name}@{topic}"},
    durable_end={"durable": "true", "auto-delete": "false", "x-queue-name": "{name}@{topic}"},
    ttl=("expiration", "relative"),
    nack="gives back",
    nack_headers={"requeue": "true"},
    reserved=frozenset({"message-id", "user-id"}),
    # Its ERROR for these names nothing, and no receipt follows: a relay would send such a record for ever.
    numeric=frozenset({"x-expires", "x-max-length", "x-max-length-bytes", "x-max-priority", "x-message-ttl"}),
    reply_to=("/queue/", "/topic/", "/exchange/", "/amq/queue/", "/reply-queue/", "/temp-queue/"),
    ended=(
        "There is no current subscription with tag 'T_",
        'Message with id "T_',
        "UNSUBSCRIBE must refer to an existing subscription.\nSubscription to \"id='",
    ),
    beat_gap=1.0,
    receipt="confirmed: in every queue it was routed to, on disk where queue and message are durable",
    notes=(
        "Under a memory or disk alarm it stops reading and heart-beats go on: a publish fails at its deadline.",
        "What is not settled when a subscription ends stays with the connection, which is then made anew; what crosses "
        "the UNSUBSCRIBE too, and is reported by an ERROR.",
        "An oversized frame or a bad escape closes the connection without a word.",
        "A topic message that no subscription wants is confirmed and gone.",
        "A new queue or durable subscription is on disk a moment after it was confirmed. If the broker is killed in "
        "that moment, all that was confirmed into the queue is gone, and so is what is published before its "
        "subscriber is back. Once it is on disk, so is each persistent message that is confirmed.",
    ),
)

ACTIVEMQ: Final = Dialect(
    name="activemq",
    title="ActiveMQ Classic",
    servers=("activemq/",),
    verified="5.17.2",
    escapes_always=(False, True),
    prefixes=("/queue/", "/topic/", "/temp-queue/", "/temp-topic/", "/remote-temp-queue/", "/remote-temp-topic/"),
    below=">",
    composite=",",
    options="?",
    prefetch="activemq.prefetchSize",
    durable={"activemq.subscriptionName": "{name}"},
    durable_end={"activemq.subscriptionName": "{name}"},
    durable_end_after=True,
    client_id=True,
    ttl=("expires", "absolute"),
    selectors=True,
    gives_back_on_unsubscribe=True,
    nack="dead-letters",
    nack_keeps=_NONE,
    reserved=frozenset({"message-id", "user-id"}),
    receipt="stored: on disk when persistent",
    notes=(
        "A durable subscription needs `client_id`, and only one connection at a time may use it.",
        "On STOMP 1.0 it trims header values, and deletes a durable subscription only if `client_id` is its name.",
        "It trims logins and passcodes: one that begins or ends with a space is refused.",
        "NACK puts the message into the broker's own dead-letter queue.",
    ),
)

EMBEDDED: Final = Dialect(
    name="embedded",
    title="deploykit's embedded broker",
    servers=("deploykit",),
    verified="this version",
    prefixes=("/queue/", "/topic/"),
    prefetch="prefetch-count",
    durable={"durable": "true", "auto-delete": "false", "x-queue-name": "{name}"},
    durable_end={"durable": "true"},
    ttl=("expires", "absolute"),
    nack="gives back",
    nack_headers={"requeue": "true"},
    nack_keeps={"reason": "too large"},
    gives_back_on_unsubscribe=True,
    beat_gap=1.0,
    receipt="stored: on disk when persistent and the broker has a data directory",
    notes=("For tests, demos and laptops; not for production.",),
)

ARTEMIS: Final = Dialect(
    name="artemis",
    title="ActiveMQ Artemis",
    servers=("activemq-artemis",),
    typed=(("destination-type", "subscription-type"), ("ANYCAST", "MULTICAST")),
    below="#",
    window="consumer-window-size",
    durable={"durable-subscription-name": "{name}"},
    durable_end={"durable-subscription-name": "{name}"},
    client_id=True,
    ttl=("expires", "absolute"),
    selectors=True,
    nack="loses",
    receipt="stored: on disk when persistent",
    notes=("NACK is the same as ACK there: the message is gone. It is never sent.",),
)

GENERIC: Final = Dialect(
    name="generic",
    title="any other STOMP broker",
    servers=(),
    notes=("Only what the STOMP specification promises: no durable subscriptions, no time to live, no NACK.",),
)

#: In order of recognition; the last one takes everything.
DIALECTS: Final = (RABBITMQ, ARTEMIS, ACTIVEMQ, EMBEDDED, GENERIC)

#: Ten years, in seconds. RabbitMQ closes the connection at a longer time to live.
MAX_TTL: Final = 10 * 365 * 86400
#: Headers that brokers parse as numbers, with the highest: anything else there is dropped or fatal.
NUMERIC: Final = MappingProxyType(
    {"timestamp": 10**15, "priority": 255, "expires": 10**15, "expiration": MAX_TTL * 1000}
)


def recognise(server: str | None) -> Dialect:
    """Return the dialect for the `server` header of CONNECTED.

    >>> recognise("ActiveMQ-Artemis/2.31.2 ActiveMQ Artemis Messaging Engine").name, recognise(None).name
    ('artemis', 'generic')
    """
    name = (server or "").lower()
    return next((dialect for dialect in DIALECTS if name.startswith(dialect.servers)), GENERIC)
