"""What tests of the relay share: a quick relay, one that runs, and a broker that refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deploykit.errors import PublishRefused
from deploykit.outbox import Outbox
from deploykit.outbox.relay import Relay
from deploykit.testing.fakes import FakeBus


def quick(outbox: Outbox, bus: FakeBus, **options: object) -> Relay:
    return Relay(outbox, bus, pause=0.01, pause_max=0.02, **options)  # type: ignore[arg-type]


@contextmanager
def running(relay: Relay) -> Iterator[threading.Event]:
    stop = threading.Event()
    thread = threading.Thread(target=relay.run, args=(stop,))
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def refuse(
    text: bytes, how: Callable[[], Exception] = lambda: PublishRefused("no such topic")
) -> Callable[..., object]:
    return lambda sent: how() if sent.frame.body == text else None
