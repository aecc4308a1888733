"""What a coordinator hears: progress, however much of it comes, delays no report."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from deploykit.bus import Ack, Delivery, Verdict
from deploykit.fleet.inbox import RolloutInbox
from deploykit.messages.topics import TopicMap

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

    def deliver(self, topic: str, number: int) -> None:
        delivery = Delivery(
            destination=topic,
            headers={},
            body=str(number).encode(),
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
