"""Destinations, messages and subscriptions as the present broker wants them. Pure, by the table in `dialect`.

Rules:

* what the broker would not honour, so that messages would be lost, is refused (`DialectError`);
* NACK is used only where it provably gives the message back; a dead letter is a copy that we send, confirmed, before
  the original is acknowledged, because NACK drops (RabbitMQ), hides (ActiveMQ) or loses (Artemis) the message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import unquote

import attrs

from deploykit.bus.stomp.dialect import ACTIVEMQ, MAX_TTL, Dialect
from deploykit.errors import DialectError
from deploykit.messages.destinations import check_destination

OnFailure = Literal["requeue", "dead-letter", "drop"]
#: How a failed message is settled: NACK to give it back, send it to its queue again, send it to the dead letters, ACK.
Settlement = Literal["nack", "republish", "dead-letter", "ack"]

#: Bytes for a message, where a broker bounds what is not settled in bytes.
WINDOW: Final = 1024
#: RabbitMQ's longest queue name, in bytes.
MAX_NAME: Final = 255
_END_OF_ID: Final = re.compile("['\"]|@@")


def is_topic(destination: str) -> bool:
    """Return whether every subscriber gets its own copy there."""
    return destination.startswith(("/topic/", "/exchange/", "/temp-topic/"))


def keeps_messages(spec: SubscriptionSpec) -> bool:
    """Return whether messages wait at the broker while there is no subscriber."""
    return spec.durable is not None or not is_topic(spec.destination)


def compile_destination(dialect: Dialect, destination: str) -> str:
    """Return a destination as the broker wants it.

    Raises:
        DialectError: it would be refused there, or mean something else.
    """
    check_destination(destination)
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
        ttl: seconds after which the broker may drop the message; None, or more than `MAX_TTL`: never.
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
class SubscriptionSpec:
    """What a caller asks of a subscription, whatever the broker."""

    destination: str
    id: str
    durable: str | None = None
    prefetch: int = 128
    on_failure: OnFailure = "dead-letter"
    selector: str | None = None


@attrs.frozen(kw_only=True, slots=True)
class CompiledSubscription:
    """A subscription for one broker: headers of its SUBSCRIBE, and how a failed message is settled."""

    headers: Mapping[str, str]
    on_failure: Settlement
    prefetched: bool


def compile_subscription(dialect: Dialect, spec: SubscriptionSpec) -> CompiledSubscription:
    """Return a subscription as its SUBSCRIBE is written for a broker.

    Raises:
        DialectError: the broker would lose messages, or ignore a wish without a word.
    """
    destination = spec.destination
    headers = {"destination": compile_destination(dialect, destination), "id": spec.id, "ack": "client-individual"}
    if dialect.typed:
        headers[dialect.typed[0][1]] = dialect.typed[1][is_topic(destination)]
    if spec.durable is not None and is_topic(destination):
        if dialect.durable is None:
            raise DialectError(
                f"{dialect.title} has no durable subscriptions that we know",
                "subscribe to a queue, or use RabbitMQ or ActiveMQ",
            )
        headers.update(_named(dialect.durable, spec.durable, destination))
    if spec.selector is not None:
        if not dialect.selectors:
            raise DialectError(f"{dialect.title} ignores selectors", "filter in the handler")
        if not spec.selector.isprintable():  # a NUL or, on 1.0, a line end would end the header
            raise DialectError(f"not an acceptable selector: {spec.selector[:80]!a}", "one line, printable")
        headers["selector"] = spec.selector
    if dialect.prefetch:
        headers[dialect.prefetch] = str(spec.prefetch)
    if dialect.window:
        # Artemis, "Flow Control" in the chapter on STOMP: with 0 the next message comes when the last is settled.
        headers[dialect.window] = str(spec.prefetch * WINDOW if spec.prefetch > 1 else 0)
    return CompiledSubscription(
        headers=headers, on_failure=settlement(dialect, spec), prefetched=bool(dialect.prefetch)
    )


def settlement(dialect: Dialect, spec: SubscriptionSpec) -> Settlement:
    """Return how a message that failed for good is settled on this broker.

    Raises:
        DialectError: `requeue` cannot be done there without losing or multiplying messages.
    """
    if spec.on_failure == "drop":
        return "ack"
    if spec.on_failure == "dead-letter":
        return "dead-letter"
    if dialect.nack == "gives back":
        return "nack"
    if not is_topic(spec.destination):
        return "republish"
    raise DialectError(
        f'{dialect.title} cannot take a topic message back (on_failure="requeue")', 'use "dead-letter" or "drop"'
    )


def durable_end(dialect: Dialect, spec: SubscriptionSpec, *, version: str, client_id: str) -> dict[str, str]:
    """Return headers of the UNSUBSCRIBE that deletes a durable subscription with all it holds.

    Raises:
        DialectError: it would not be found there.
    """
    if spec.durable is None or not is_topic(spec.destination):
        return {}
    if dialect is ACTIVEMQ and version == "1.0" and client_id != spec.durable:
        # Its STOMP 1.0 code looks for the subscription under its own name as client id (ProtocolConverter.java).
        raise DialectError(
            f"{dialect.title} cannot delete this durable subscription over STOMP 1.0",
            "use 1.1 or 1.2, or a client_id that is the subscription's name",
        )
    return _named(dialect.durable_end, spec.durable, spec.destination)


def crossed_the_end(dialect: Dialect, body: bytes) -> str | None:
    """Return the id of the ended subscription that an ERROR with this body is about; None: it is about none."""
    text = body.decode("utf-8", "replace")
    for beginning in dialect.ended:
        if text.startswith(beginning):
            return _END_OF_ID.split(text[len(beginning) :], maxsplit=1)[0]
    return None


def _named(template: Mapping[str, str], name: str, destination: str) -> dict[str, str]:
    topic = destination.removeprefix("/topic/").removeprefix("/exchange/")
    headers = {key: value.format(name=name, topic=topic) for key, value in template.items()}
    if any(len(value.encode()) > MAX_NAME for value in headers.values()):
        raise DialectError(
            f"the names of the durable subscription {name!r} and its topic are too long together",
            f"at most {MAX_NAME} bytes",
        )
    return headers
