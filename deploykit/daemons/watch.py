"""Tail the bus: each message as it passes, for people or for scripts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence

from deploykit.bus import Ack, Bus, Delivery, Retry, Verdict
from deploykit.bus.events import Connected, ConnectFailed, Event, Lost
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
    on_trouble: Callable[[str], None] = lambda _: None,
) -> None:
    """Show messages until TERM, or until `count` were shown.

    Args:
        destinations: instead of every topic in the settings.
        durable: a name under which the broker keeps what comes while nobody watches; None keeps nothing.
        show: takes one line.
        on_ready: called once the broker answered.
        on_trouble: takes a line when the broker cannot be reached, and when it is back.

    Raises:
        LoginRefused: no broker takes us.
        OSError: what `show` raised: nobody reads any more.
    """
    watched = destinations or settings.topics.destinations
    changed = threading.Condition()
    shown = 0
    broken: list[OSError] = []

    def handle(delivery: Delivery) -> Verdict:
        nonlocal shown
        line = _as_json(delivery) if as_json else _as_line(delivery)
        with changed:
            if broken or shown == count:
                return Retry(after=60.0)  # not ours to take: the broker keeps it for the next watcher
            if line:
                try:
                    show(line)
                except OSError as error:  # nobody reads on: `deploykit watch | head`
                    broken.append(error)
                    changed.notify()
                    return Retry(after=60.0)
                shown += 1
                changed.notify()
        return Ack()

    with lifecycle.signals() as stop, _bus(settings, durable, _Troubles(on_trouble)) as bus:
        for destination, name in _named(watched, durable):
            bus.subscribe(destination, handle, durable=name)
        while not stop.is_set() and not bus.wait_connected(0.2):
            pass
        if not stop.is_set():
            on_ready()
        with changed:
            while not (stop.is_set() or broken or shown == count):
                changed.wait(0.2)
    if broken:
        raise broken[0]


class _Troubles:
    """Tells a person at the terminal why nothing comes: once for each time the line is down, not for each attempt."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._down = False

    def __call__(self, event: Event) -> None:
        match event:
            case Connected():
                if self._down:
                    self._tell("connected")
                self._down = False
            case ConnectFailed(problem=problem) | Lost(reason=problem) if not self._down:
                self._down = True
                self._tell(f"waiting for a broker: {problem}")


def forget(settings: Settings, *, destinations: Sequence[str], durable: str) -> None:
    """Drop durable subscriptions made by `run` at the broker."""
    with _bus(settings, durable) as bus:
        bus.wait_connected(settings.broker.connect_timeout)
        for destination, name in _named(destinations or settings.topics.destinations, durable):
            subscription = bus.subscribe(destination, lambda _: None, durable=name)
            subscription.wait_active(settings.broker.connect_timeout)
            subscription.unsubscribe(forget=True)


def _bus(settings: Settings, durable: str | None, on_event: Callable[[Event], None] | None = None) -> Bus:
    return Bus(settings.broker, on_event=on_event, client_id=f"deploykit-watch-{durable}" if durable else "")


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
