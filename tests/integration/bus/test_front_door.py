"""The short way in: an address, a message, a class, a handler; and publishing that never blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus, Delivery, Retry
from deploykit.errors import BusClosed, MessageError, SettingsError, UsageError, WindowFull
from deploykit.messages import BuildFinished, Message, Notice, PackagePublished
from deploykit.messages.topics import PRESETS, TopicMap
from deploykit.settings import BusSettings
from deploykit.wire import decode, encode
from tests.support.bus import fast, running, text
from tests.support.wait import wait_until

TOPICS = TopicMap(notice="/queue/notices", package="/queue/packages")
NOTICE = Notice(text="hello", source="git/host")
PACKAGE = PackagePublished(source="packages/host", name="tool", version="1.0", architecture="all")


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(record=10_000) as embedded:
        yield embedded


def test_an_address_alone_is_enough(broker: EmbeddedBroker) -> None:
    with Bus(broker.address) as bus:
        assert bus.settings == BusSettings(address=broker.address)
        bus.publish("/queue/q", text("hello"))
    assert [frame.body for frame in broker.peek("/queue/q")] == [b"hello"]


def test_an_address_that_is_not_understood_is_refused() -> None:
    with pytest.raises(SettingsError, match="address"):
        Bus("http://broker")


def test_a_message_is_sent_to_its_topic(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address)) as bus:
        bus.send(NOTICE, topics=TOPICS, persistent=False)
        bus.send(PACKAGE, topics=TOPICS, ttl=60.0)
    (notice,) = broker.peek("/queue/notices")
    (package,) = broker.peek("/queue/packages")
    assert decode(notice.headers, notice.body) == NOTICE
    assert decode(package.headers, package.body) == PACKAGE
    assert "persistent" not in notice.headers
    assert package.headers["persistent"] == "true"
    assert "expires" in package.headers


def test_a_message_that_cannot_be_written_is_not_sent(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address)) as bus:
        with pytest.raises(MessageError):
            bus.send(Notice(text="half \ud800", source="git/host"), topics=TOPICS)
        assert bus.counters.published == 0


def test_a_listener_gets_the_messages_of_its_class(broker: EmbeddedBroker) -> None:
    heard: list[tuple[Message, str]] = []

    def on_notice(message: Notice, delivery: Delivery) -> None:
        heard.append((message, delivery.id))

    with running(fast(broker.address, dead_letter="/queue/dead")) as bus:
        (subscription,) = bus.listen(Notice, on_notice, topics=TOPICS, prefetch=4, workers=1)
        assert subscription.wait_active(30)
        bus.publish("/queue/notices", text("no message at all"), timeout=30)
        bus.publish("/queue/notices", text("{", **{"content-type": "application/cloudevents+json"}))
        bus.send(PACKAGE, topics=TopicMap(package="/queue/notices"))
        bus.send(NOTICE, topics=TOPICS)
        wait_until(lambda: heard)
        wait_until(lambda: not broker.peek("/queue/notices"))
    assert heard == [(NOTICE, NOTICE.id)]
    dead = broker.peek("/queue/dead")
    assert b"{" in [frame.body for frame in dead]
    assert encode(PACKAGE).body not in [frame.body for frame in dead]


def test_a_listener_may_ask_for_another_attempt(broker: EmbeddedBroker) -> None:
    attempts: list[int] = []

    def handle(_: Notice, delivery: Delivery) -> Retry | None:
        attempts.append(delivery.attempt)
        return Retry(0) if len(attempts) < 3 else None

    with running(fast(broker.address)) as bus:
        bus.listen(Notice, handle, topics=TOPICS)
        bus.send(NOTICE, topics=TOPICS)
        wait_until(lambda: attempts == [1, 2, 3])


def test_classes_of_several_topics_are_heard_by_one_call(broker: EmbeddedBroker) -> None:
    heard: list[str] = []
    with running(fast(broker.address)) as bus:
        subscriptions = bus.listen(
            (Notice, PackagePublished), lambda message, _: heard.append(message.id), topics=TOPICS
        )
        assert [one.destination for one in subscriptions] == ["/queue/notices", "/queue/packages"]
        bus.send(PACKAGE, topics=TOPICS)
        bus.send(NOTICE, topics=TOPICS)
        wait_until(lambda: sorted(heard) == sorted([NOTICE.id, PACKAGE.id]))


def test_one_durable_name_is_not_for_several_topics(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address)) as bus:
        with pytest.raises(UsageError, match="2 topics"):
            bus.listen(BuildFinished, lambda *_: None, topics=PRESETS["future"], durable="me")
        (one,) = bus.listen(BuildFinished, lambda *_: None, durable="me")
        assert one.wait_active(30)


def test_a_listener_that_cannot_subscribe_to_all_leaves_nothing_behind(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address)) as bus:
        with pytest.raises(Exception, match="destination"):
            bus.listen((Notice, PackagePublished), lambda *_: None, topics=TopicMap(package="nowhere"))
        assert bus._services.subscriptions == []


# -- publishing without waiting ----------------------------------------------------------------------------------------


def test_publishing_without_waiting_never_blocks_while_the_broker_is_away(unused_port: int) -> None:
    settings = fast(f"stomp://127.0.0.1:{unused_port}", window=10, publish_timeout=3600.0)
    with Bus(settings) as bus:
        began = time.monotonic()
        futures = [bus.publish_nowait("/queue/q", text(str(n))) for n in range(10)]
        for n in range(1000):
            with pytest.raises(WindowFull, match="not sent"):
                bus.publish_nowait("/queue/q", text(str(n)), timeout=3600.0)
        assert time.monotonic() - began < 60  # and not the hour
        assert not any(future.done() for future in futures)
        bus.stop(0.0)
    assert all(isinstance(future.exception(60), BusClosed) for future in futures)


def test_publishing_without_waiting_has_room_again_after_a_receipt(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address, window=1)) as bus:
        broker.faults.withhold_receipts()
        bus.publish_nowait("/queue/q", text("1"))
        with pytest.raises(WindowFull):
            bus.publish_nowait("/queue/q", text("2"))
        broker.faults.withhold_receipts(False)
        broker.faults.drop()
        bus.publish("/queue/q", text("3"), timeout=30)
        bus.publish_nowait("/queue/q", text("4")).result(30)


def test_publishing_waits_for_room_while_others_fill_the_window(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address, window=1)) as bus:
        broker.faults.withhold_receipts()
        began = time.monotonic()
        bus.publish_nowait("/queue/q", text("1"), timeout=0.5)
        wait_until(lambda: broker.sent("/queue/q"))
        broker.faults.withhold_receipts(False)  # the first one's is lost, and it has room until its time is over
        bus.publish("/queue/q", text("2"), timeout=60)
        assert time.monotonic() - began >= 0.5
        assert [frame.body for frame in broker.sent("/queue/q")] == [b"1", b"2"]
