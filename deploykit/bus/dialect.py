"""What brokers do differently, as data, and how an intent is compiled for each: pure.

`DIALECTS` is the only place where a broker's ways are written down; docs/brokers.md's table is made from it, and a
test keeps the two equal. Rules:

* an intent that the broker would not honour, so that messages would be lost, is refused (`DialectError`);
* NACK is used only where it provably gives the message back; a dead letter is a copy that we send, confirmed, before
  the original is acknowledged, because NACK drops (RabbitMQ), hides (ActiveMQ) or loses (Artemis) the message;
* a broker we do not know (`generic`) gets the smallest promise: queues, topics, acknowledgements.

Sources: facts in the brokers' own documentation and sources, and the conformance suite (tests/integration), which runs
against RabbitMQ 3.10, ActiveMQ Classic 5.17 and the embedded broker. Artemis is written from its documentation only.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal
from urllib.parse import unquote

import attrs

from deploykit.errors import DialectError

OnFailure = Literal["requeue", "dead-letter", "drop"]
#: How a failed message is settled: NACK to give it back, send it to its queue again, send it to the dead letters, ACK.
Settlement = Literal["nack", "republish", "dead-letter", "ack"]

MAX_DESTINATION: Final = 512
#: RabbitMQ's longest queue name, in bytes.
MAX_NAME: Final = 255

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
        composite: characters that would turn a destination into several.
        options: what ends a name there and begins options; such brokers also trim names.
        typed: `/queue/` and `/topic/` are our words only: header (SEND, SUBSCRIBE) -> values (queue, topic).
        prefetch: header that bounds unacknowledged deliveries; empty: none, we bound by not reading.
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
        gives_back_on_unsubscribe: what was delivered and not settled goes back to the queue at UNSUBSCRIBE; else it
            stays with the connection until that ends.
        crossed: what the body of an ERROR begins with that stands for a message which crossed an UNSUBSCRIBE; the
            subscription's id is next, in quotes.
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
    composite: str = ""
    options: str = ""
    typed: tuple[tuple[str, str], tuple[str, str]] | None = None
    prefetch: str = ""
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
    gives_back_on_unsubscribe: bool = False
    crossed: str = ""
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
    prefixes=("/queue/", "/topic/", "/exchange/", "/amq/queue/", "/temp-queue/", "/reply-queue/"),
    prefetch="prefetch-count",
    # With the topic in it: a queue, or another topic's subscription, of the same name must not become the same queue.
    durable={"durable": "true", "auto-delete": "false", "x-queue-name": "{name}@{topic}"},
    durable_end={"durable": "true", "auto-delete": "false", "x-queue-name": "{name}@{topic}"},
    ttl=("expiration", "relative"),
    nack="gives back",
    nack_headers={"requeue": "true"},
    reserved=frozenset({"message-id", "user-id"}),
    crossed="There is no current subscription with tag 'T_",
    beat_gap=1.0,
    receipt="confirmed: in every queue it was routed to, on disk where queue and message are durable",
    notes=(
        "Under a memory or disk alarm it stops reading and heart-beats go on: a publish fails at its deadline.",
        "What is not settled when a subscription ends stays with the connection, which is then made anew; what crosses "
        "the UNSUBSCRIBE too, and is told of by an ERROR.",
        "An oversized frame or a bad escape closes the connection without a word.",
        "A topic message that no subscription wants is confirmed and gone.",
    ),
)

ACTIVEMQ: Final = Dialect(
    name="activemq",
    title="ActiveMQ Classic",
    servers=("activemq/",),
    verified="5.17.2",
    escapes_always=(False, True),
    prefixes=("/queue/", "/topic/", "/temp-queue/", "/temp-topic/", "/remote-temp-queue/", "/remote-temp-topic/"),
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

#: Headers of a SEND that belong to the bus or to the connection; a frame that brings them is refused.
RESERVED: Final = frozenset(
    {
        "destination",
        "receipt",
        "transaction",
        "content-length",
        "login",
        "passcode",
        "host",
        "heart-beat",
        "accept-version",
        "client-id",
        "id",
        "ack",
        "subscription",
        "message-id",
        "receipt-id",
    }
)
#: Ten years, in seconds. RabbitMQ closes the connection at a longer time to live.
MAX_TTL: Final = 10 * 365 * 86400
#: Headers that brokers parse as numbers, with the highest: anything else there is dropped or fatal.
NUMERIC: Final = MappingProxyType(
    {"timestamp": 10**15, "priority": 255, "expires": 10**15, "expiration": MAX_TTL * 1000}
)


def recognise(server: str | None) -> Dialect:
    """Tell the dialect from the `server` header of CONNECTED.

    >>> recognise("ActiveMQ-Artemis/2.31.2 ActiveMQ Artemis Messaging Engine").name, recognise(None).name
    ('artemis', 'generic')
    """
    said = (server or "").lower()
    return next((dialect for dialect in DIALECTS if said.startswith(dialect.servers)), GENERIC)


def is_topic(destination: str) -> bool:
    """Tell whether every subscriber gets its own copy there."""
    return destination.startswith(("/topic/", "/exchange/", "/temp-topic/"))


def keeps_messages(intent: Intent) -> bool:
    """Tell whether messages wait at the broker while nobody is subscribed."""
    return intent.durable is not None or not is_topic(intent.destination)


def compile_destination(dialect: Dialect, destination: str) -> str:
    """Write a destination as the broker wants it.

    Raises:
        DialectError: it would be refused there, or mean something else.
    """
    if not destination.isprintable() or "\\" in destination or not 0 < len(destination) <= MAX_DESTINATION:
        raise DialectError(
            f"not an acceptable destination: {destination[:80]!a}",
            f"no control characters, no backslash, at most {MAX_DESTINATION} characters",
        )
    if dialect.prefixes and not destination.startswith(dialect.prefixes):
        raise DialectError(
            f"{dialect.title} does not know the destination {destination!r}",
            f"begin it with one of {' '.join(dialect.prefixes)}",
        )
    if any(character in destination for character in dialect.composite):
        raise DialectError(
            f"{dialect.title} would take {destination!r} for several destinations", "use a name without a comma"
        )
    name = destination[destination.find("/", 1) + 1 :]
    if dialect.options and (dialect.options in name or name != name.strip()):
        raise DialectError(
            f"{dialect.title} would take {destination!r} for a shorter name",
            f"use one without {dialect.options} and without spaces around it",
        )
    for prefix in ("/queue/", "/topic/"):
        if destination.startswith(prefix):
            name = destination[len(prefix) :]
            if not name:
                raise DialectError(f"{destination!r} has no name", f"write {prefix}NAME")
            if dialect.typed:
                return name
            return prefix + name.replace("/", "%2F") if dialect.encode_slash else destination
    return destination


def read_destination(dialect: Dialect, destination: str) -> str:
    """Undo `compile_destination` on what the broker sends."""
    return unquote(destination) if dialect.encode_slash and "%" in destination else destination


def compile_send(
    dialect: Dialect, destination: str, *, persistent: bool, ttl: float | None, now: float
) -> dict[str, str]:
    """Return the headers of a SEND for this broker: destination, persistence, expiry.

    Args:
        ttl: seconds after which nobody wants the message any more; None, or more than `MAX_TTL`: never.
        now: seconds since the epoch.

    Raises:
        DialectError: the broker would do something else.
    """
    headers = {"destination": compile_destination(dialect, destination)}
    if dialect.typed:
        headers[dialect.typed[0][0]] = dialect.typed[1][is_topic(destination)]
    if persistent:
        headers.update(dialect.persistent)
    if ttl is not None:
        if dialect.ttl is None:
            raise DialectError(f"{dialect.title} has no time to live for messages", "publish without ttl")
        header, unit = dialect.ttl
        if ttl > MAX_TTL:
            return headers
        headers[header] = str(max(1, round((ttl if unit == "relative" else now + ttl) * 1000)))
    return headers


@attrs.frozen(kw_only=True, slots=True)
class Intent:
    """What a subscription is to be, whatever the broker."""

    destination: str
    id: str
    durable: str | None = None
    prefetch: int = 128
    on_failure: OnFailure = "dead-letter"
    selector: str | None = None


@attrs.frozen(kw_only=True, slots=True)
class Compiled:
    """A subscription for one broker: headers of its SUBSCRIBE, and how a failed message is settled."""

    headers: Mapping[str, str]
    on_failure: Settlement
    prefetched: bool


def compile_subscription(dialect: Dialect, intent: Intent) -> Compiled:
    """Compile an intent.

    Raises:
        DialectError: the broker would lose messages, or ignore a wish without a word.
    """
    destination = intent.destination
    headers = {"destination": compile_destination(dialect, destination), "id": intent.id, "ack": "client-individual"}
    if dialect.typed:
        headers[dialect.typed[0][1]] = dialect.typed[1][is_topic(destination)]
    if intent.durable is not None and is_topic(destination):
        if dialect.durable is None:
            raise DialectError(
                f"{dialect.title} has no durable subscriptions that we know",
                "subscribe to a queue, or use RabbitMQ or ActiveMQ",
            )
        headers.update(_named(dialect.durable, intent.durable, destination))
    if intent.selector is not None:
        if not dialect.selectors:
            raise DialectError(f"{dialect.title} ignores selectors", "filter in the handler")
        headers["selector"] = intent.selector
    if dialect.prefetch:
        headers[dialect.prefetch] = str(intent.prefetch)
    return Compiled(headers=headers, on_failure=settlement(dialect, intent), prefetched=bool(dialect.prefetch))


def settlement(dialect: Dialect, intent: Intent) -> Settlement:
    """How a message that failed for good is settled on this broker.

    Raises:
        DialectError: `requeue` cannot be done there without losing or multiplying messages.
    """
    if intent.on_failure == "drop":
        return "ack"
    if intent.on_failure == "dead-letter":
        return "dead-letter"
    if dialect.nack == "gives back":
        return "nack"
    if not is_topic(intent.destination):
        return "republish"
    raise DialectError(
        f'{dialect.title} cannot take a topic message back (on_failure="requeue")', 'use "dead-letter" or "drop"'
    )


def durable_end(dialect: Dialect, intent: Intent, *, version: str, client_id: str) -> dict[str, str]:
    """Headers of the UNSUBSCRIBE that deletes a durable subscription with all it holds.

    Raises:
        DialectError: it would not be found there.
    """
    if intent.durable is None or not is_topic(intent.destination):
        return {}
    if dialect is ACTIVEMQ and version == "1.0" and client_id != intent.durable:
        # Its STOMP 1.0 code looks for the subscription under its own name as client id (ProtocolConverter.java).
        raise DialectError(
            f"{dialect.title} cannot delete this durable subscription over STOMP 1.0",
            "use 1.1 or 1.2, or a client_id that is the subscription's name",
        )
    return _named(dialect.durable_end, intent.durable, intent.destination)


def crossed_the_end(dialect: Dialect, body: bytes) -> str | None:
    """The id of the subscription whose message crossed its UNSUBSCRIBE, if an ERROR of this body says that."""
    told, found, rest = body.decode("utf-8", "replace").partition(dialect.crossed or "\0")
    return rest.partition("'")[0] if found and not told else None


def _named(template: Mapping[str, str], name: str, destination: str) -> dict[str, str]:
    topic = destination.removeprefix("/topic/").removeprefix("/exchange/")
    headers = {key: value.format(name=name, topic=topic) for key, value in template.items()}
    if any(len(value.encode()) > MAX_NAME for value in headers.values()):
        raise DialectError(
            f"the names of the durable subscription {name!r} and its topic are too long together",
            f"at most {MAX_NAME} bytes",
        )
    return headers


def markdown_table() -> str:
    """Return the table of docs/brokers.md."""
    rows: list[tuple[str, list[str]]] = [
        ("verified on", [d.verified or "documentation only" for d in DIALECTS]),
        ("destinations", [" ".join(f"`{p}`" for p in d.prefixes) or "any" for d in DIALECTS]),
        ("durable topic subscription", [_headers(d.durable) if d.durable else "refused" for d in DIALECTS]),
        ("needs `client_id` for it", [_yes(d.client_id) for d in DIALECTS]),
        ("`prefetch=`", [f"`{d.prefetch}`" if d.prefetch else "by not reading" for d in DIALECTS]),
        ("`ttl=`", [f"`{d.ttl[0]}` ({d.ttl[1]}, ms)" if d.ttl else "refused" for d in DIALECTS]),
        ("`persistent=`", [_headers(d.persistent) for d in DIALECTS]),
        ("`selector=`", ["honoured" if d.selectors else "refused" for d in DIALECTS]),
        ("NACK", [d.nack for d in DIALECTS]),
        ('`on_failure="dead-letter"`', ["copy, receipt, ACK"] * len(DIALECTS)),
        ('`on_failure="requeue"` on a queue', [_requeue(d, "/queue/q") for d in DIALECTS]),
        ('`on_failure="requeue"` on a topic', [_requeue(d, "/topic/t") for d in DIALECTS]),
        ("headers escaped on 1.0", [_yes(any(d.escapes_always)) for d in DIALECTS]),
        ("`/` in a name", ["`%2F`" if d.encode_slash else "as it is" for d in DIALECTS]),
        ("a receipt for a SEND says", [d.receipt for d in DIALECTS]),
    ]
    lines = [
        "| | " + " | ".join(d.title for d in DIALECTS) + " |",
        "|---" * (len(DIALECTS) + 1) + "|",
        *("| " + " | ".join([name, *cells]) + " |" for name, cells in rows),
    ]
    return "\n".join(lines) + "\n"


def _headers(headers: Mapping[str, str]) -> str:
    return " ".join(f"`{key}:{value.format(name='NAME', topic='TOPIC')}`" for key, value in headers.items())


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _requeue(dialect: Dialect, destination: str) -> str:
    try:
        how = settlement(dialect, Intent(destination=destination, id="", on_failure="requeue"))
    except DialectError:
        return "refused"
    return {"nack": "NACK", "republish": "sent again, then ACK"}.get(how, how)
