"""What a coordinator hears: progress, however much of it comes, delays no report."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from deploykit.bus import Ack, Delivery, Verdict
from deploykit.fleet.inbox import RolloutInbox
from deploykit.messages.topics import TopicMap
from tests.support.wait import wait_until

TOPICS = TopicMap()


class HandBus:
    """A bus on which the test delivers by hand."""

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[[Delivery], Verdict | None]] = {}

    def subscribe(self, topic: str, handler: Callable[[Delivery], Verdict | None]) -> SimpleNamespace:
        self.handlers[topic] = handler
        return SimpleNamespace(unsubscribe=lambda: None, wait_active=lambda timeout: True)

    def add_listener(self, listener: object) -> Callable[[], None]:
        return lambda: None

    def deliver(self, topic: str, content: int | bytes) -> None:
        delivery = Delivery(
            destination=topic,
            headers={},
            body=content if isinstance(content, bytes) else str(content).encode(),
            message_id="",
            id="",
            attempt=1,
            redelivered=False,
            epoch=0,
        )
        assert isinstance(self.handlers[topic](delivery), Ack)


def inbox_of(bus: Any) -> RolloutInbox:
    return RolloutInbox(bus, TOPICS, lambda delivery: True, 1.0)


def test_progress_that_comes_quicker_than_it_is_taken_waits_for_the_next_time() -> None:
    bus = HandBus()
    with inbox_of(bus) as inbox:
        for number in range(3):
            bus.deliver(TOPICS.progress, number)
        taken = []
        for at, delivery in enumerate(inbox.progress()):
            assert at < 100, "it never ends"
            taken.append(delivery.body)
            bus.deliver(TOPICS.progress, at + 3)
        assert taken == [b"0", b"1", b"2"]
        assert [delivery.body for delivery in inbox.progress()] == [b"3", b"4", b"5"]


def test_a_report_comes_before_the_progress_that_waits() -> None:
    bus = HandBus()
    with inbox_of(bus) as inbox:
        for number in range(5):
            bus.deliver(TOPICS.progress, number)
        taken = []
        for delivery in inbox.progress():
            taken.append(delivery.body)
            if len(taken) == 2:
                bus.deliver(TOPICS.report, 7)
        assert taken == [b"0", b"1"]
        assert [each.body for each in inbox.arrivals(0.0) if isinstance(each, Delivery)] == [b"7"]
        assert [delivery.body for delivery in inbox.progress()] == [b"2", b"3", b"4"]


def test_a_flood_of_long_progress_is_not_kept() -> None:
    bus = HandBus()
    with inbox_of(bus) as inbox:
        bus.deliver(TOPICS.progress, b"x" * 100_000)
        bus.deliver(TOPICS.progress, 1)
        assert [delivery.body for delivery in inbox.progress()] == [b"1"]


def test_a_flood_of_long_reports_waits_at_the_broker() -> None:
    bus = HandBus()
    long, count = b"x" * 1_000_000, 50
    with inbox_of(bus) as inbox:

        def flood() -> None:
            for _ in range(count):
                bus.deliver(TOPICS.report, long)

        sender = threading.Thread(target=flood)
        sender.start()
        taken, most = 0, 0
        while taken < count:
            wait_until(inbox._arrived.full if count - taken > 35 else lambda: not inbox._arrived.empty())
            most = max(most, len(inbox._arrived.queue))
            inbox._arrived.get_nowait()
            taken += 1
        sender.join(10)
    assert most <= 35, "more than 32 MiB waited"
