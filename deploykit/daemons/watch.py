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
    as_json: bool,
    show: Callable[[str], None],
    on_ready: Callable[[], None],
) -> None:
    """Show messages until TERM, or until `count` were shown.

    Args:
        destinations: instead of every topic in the settings.
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

    with lifecycle.signals() as stop, Bus(settings.broker) as bus:
        for destination in watched:
            bus.subscribe(destination, handle)
        while not stop.is_set() and not bus.wait_connected(0.2):
            pass
        if not stop.is_set():
            on_ready()
        seen = 0
        while not stop.is_set() and (count is None or seen < count):
            seen += left.acquire(timeout=0.2)


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
