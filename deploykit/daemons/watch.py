"""Tail the bus: each message as it passes, for people or for scripts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence

from deploykit.bus import Ack, Bus, Delivery, Verdict
from deploykit.daemons import lifecycle
from deploykit.errors import MessageError
from deploykit.messages import one_line
from deploykit.settings import Settings
from deploykit.wire import decode, plain


def run(
    settings: Settings,
    *,
    destinations: Sequence[str],
    count: int | None,
    durable: str | None,
    as_json: bool,
    show: Callable[[str], None],
    on_ready: Callable[[], None],
) -> None:
    """Show messages until TERM, or until `count` were shown.

    Args:
        destinations: instead of every topic in the settings.
        durable: a name under which the broker keeps what comes while nobody watches; None keeps nothing.
        show: takes one line.
        on_ready: called once the broker answered.
    """
    watched = destinations or settings.topics.destinations
    left = threading.Semaphore(0)
    lock = threading.Lock()

    def handle(delivery: Delivery) -> Verdict:
        line = _as_json(delivery) if as_json else _as_line(delivery)
        if line:
            with lock:
                show(line)
            left.release()
        return Ack()

    with lifecycle.signals() as stop, _bus(settings, durable) as bus:
        for destination, name in _named(watched, durable):
            bus.subscribe(destination, handle, durable=name)
        while not stop.is_set() and not bus.wait_connected(0.2):
            pass
        if not stop.is_set():
            on_ready()
        seen = 0
        while not stop.is_set() and (count is None or seen < count):
            seen += left.acquire(timeout=0.2)


def forget(settings: Settings, *, destinations: Sequence[str], durable: str) -> None:
    """Drop durable subscriptions made by `run` at the broker."""
    with _bus(settings, durable) as bus:
        bus.wait_connected(settings.broker.connect_timeout)
        for destination, name in _named(destinations or settings.topics.destinations, durable):
            subscription = bus.subscribe(destination, lambda _: None, durable=name)
            subscription.wait_active(settings.broker.connect_timeout)
            subscription.unsubscribe(forget=True)


def _bus(settings: Settings, durable: str | None) -> Bus:
    return Bus(settings.broker, client_id=f"deploykit-watch-{durable}" if durable else "")


def _named(destinations: Sequence[str], durable: str | None) -> list[tuple[str, str | None]]:
    """Each destination with the name of its durable subscription."""
    return [(each, f"{durable}-{each.rpartition('/')[2]}" if durable else None) for each in destinations]


def _as_line(delivery: Delivery) -> str:
    try:
        message = decode(delivery.headers, delivery.body, delivery.destination)
    except MessageError as error:
        return one_line(f"not a message on {delivery.destination}: {error}")
    return "" if message is None else f"{message.time:%H:%M:%S} {message.summary}"


def _as_json(delivery: Delivery) -> str:
    try:
        message = decode(delivery.headers, delivery.body, delivery.destination)
    except MessageError as error:
        return json.dumps({"destination": delivery.destination, "error": str(error)})
    if message is None:
        return ""
    try:
        body: object = json.loads(delivery.body)
    except ValueError:
        body = plain(message)
    return json.dumps({"destination": delivery.destination, "summary": message.summary, "message": body}, default=str)
