"""What networks and brokers do to a message that is published: it arrives, or its caller learns why not."""

from __future__ import annotations

import threading
import time

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.errors import PublishError, PublishRefused, WindowFull
from deploykit.wire.frame import Frame
from tests.support.badservers import PoisonServer, WordyServer
from tests.support.bus import bus_threads, fast, running, text
from tests.support.wait import wait_until


def frame(headers: object, body: object) -> Frame:
    """A frame as a caller without a type checker makes it."""
    return Frame(headers, body)  # type: ignore[arg-type]  # wrong on purpose


def test_a_broker_that_dies_between_send_and_receipt_gets_the_message_again_with_the_same_id(
    broker: EmbeddedBroker,
) -> None:
    with running(fast(broker.address)) as bus:
        broker.faults.withhold_receipts()
        futures = [bus.publish_nowait("/queue/q", text(str(n))) for n in range(20)]
        wait_until(lambda: len(broker.sent("/queue/q")) == 20)
        assert not any(future.done() for future in futures)
        first = [f.headers["deploykit-id"] for f in broker.sent()]
        broker.kill()
        broker.faults.clear()
        broker.start()
        for future in futures:
            future.result(30)
        assert [f.headers["deploykit-id"] for f in broker.sent()] == first
        assert [f.body for f in broker.sent()] == [str(n).encode() for n in range(20)]
        assert bus.counters.resent == 20


def test_a_message_that_is_being_written_while_the_connection_goes_is_sent_on_the_next(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(fast(broker.address)) as bus:
        next_unsent, lost, written = bus._unconfirmed.next_unsent, bus._unconfirmed.connection_lost, threading.Event()

        def slowly() -> object:
            if threading.current_thread() is threading.main_thread():
                broker.faults.drop()
                written.wait(1)  # for the supervisor to have noticed
            return next_unsent()

        def noticed(*, by_broker: bool, last_error: str) -> None:
            lost(by_broker=by_broker, last_error=last_error)
            written.set()

        monkeypatch.setattr(bus._unconfirmed, "next_unsent", slowly)
        monkeypatch.setattr(bus._unconfirmed, "connection_lost", noticed)
        bus.publish("/queue/q", text("x"), timeout=60)
        assert written.is_set()


def test_a_receipt_that_never_comes_is_an_error_in_time(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address, publish_timeout=3600.0)) as bus:
        broker.faults.withhold_receipts()
        started = time.monotonic()
        with pytest.raises(PublishError, match="no receipt"):
            bus.publish("/queue/q", text("x"), timeout=0.3)
        assert 0.25 < time.monotonic() - started < 40


def test_a_broker_that_stops_reading_but_beats_fails_publishes_at_their_deadline_and_keeps_the_connection(
    broker: EmbeddedBroker,
) -> None:
    with running(fast(broker.address, heartbeat=1.0)) as bus:
        broker.faults.stop_reading()
        for _ in range(3):
            started = time.monotonic()
            with pytest.raises(PublishError):
                bus.publish("/queue/q", text("x" * 1000), timeout=0.8)  # three of these are a silence too long
            assert time.monotonic() - started < 40
        assert bus.counters.losses == 0
        broker.faults.stop_reading(False)
        bus.publish("/queue/q", text("after"))


def test_a_peer_that_never_reads_costs_no_caller_more_than_its_deadline(broker: EmbeddedBroker) -> None:
    """Far more than the socket's buffers take; stomp.py's own send would block for ever."""
    with Bus(fast(broker.address, heartbeat=0.0, window_bytes=64 * 1024 * 1024)) as bus:
        assert bus.wait_connected(30)
        broker.faults.freeze()
        started = time.monotonic()
        futures = [bus.publish_nowait("/queue/q", text("x" * 1_000_000), timeout=0.5) for _ in range(30)]
        for future in futures:
            assert isinstance(future.exception(60), PublishError)
        assert time.monotonic() - started < 60  # it would be for ever
        started = time.monotonic()
        bus.stop(0.5)
        assert time.monotonic() - started < 40
    wait_until(lambda: bus_threads() == [])


def test_publishing_faster_than_the_broker_confirms_waits_for_room_not_past_the_deadline_or_not_at_all(
    broker: EmbeddedBroker,
) -> None:
    with running(fast(broker.address, window=10, publish_timeout=60.0)) as bus:
        broker.faults.withhold_receipts()
        for n in range(10):
            bus.publish_nowait("/queue/q", text(str(n)))
        started = time.monotonic()
        with pytest.raises(WindowFull, match="no room"):
            bus.publish("/queue/q", text("one too many"), timeout=0.3)
        assert 0.25 < time.monotonic() - started < 30
        with pytest.raises(WindowFull, match="no room"):
            bus.publish_nowait("/queue/q", text("one too many"), timeout=3600.0)
        assert time.monotonic() - started < 60  # and not the hour
        broker.faults.withhold_receipts(False)
        broker.faults.drop()
        bus.publish("/queue/q", text("room again"))


def test_a_refused_message_is_an_error_and_the_others_arrive(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address)) as bus:
        broker.faults.error_next("SEND", "planned refusal", close=True)
        futures = [bus.publish_nowait("/queue/q", text(str(n))) for n in range(10)]
        assert isinstance(futures[0].exception(30), PublishRefused)
        assert "planned refusal" in str(futures[0].exception())
        for future in futures[1:]:
            future.result(30)


def test_a_message_that_kills_every_connection_is_given_up_and_the_others_arrive() -> None:
    """RabbitMQ closes without a word on what it finds too large: the message must not take the others with it."""
    with PoisonServer(b"POISON") as server, running(fast(server.address)) as bus:
        bodies = ["a", "b", "POISON", "c", "d"]
        futures = [bus.publish_nowait("/queue/q", text(body), timeout=60) for body in bodies]
        assert isinstance(futures[2].exception(60), PublishRefused)
        for index in (0, 1, 3, 4):
            futures[index].result(60)


def test_an_expired_deadline_takes_the_message_out_of_the_line(broker: EmbeddedBroker) -> None:
    broker.stop()
    with Bus(fast(broker.address)) as bus:
        with pytest.raises(PublishError, match="not connected"):
            bus.publish("/queue/q", text("too late"), timeout=0.2)
        broker.start()
        bus.publish("/queue/q", text("in time"))
    assert [f.body for f in broker.peek("/queue/q")] == [b"in time"]


def test_a_header_that_would_break_out_of_its_line_is_refused(broker: EmbeddedBroker) -> None:
    for version in ("1.0", "1.1", "1.2"):
        with running(fast(broker.address, versions=(version,))) as bus:
            with pytest.raises(PublishRefused):
                bus.publish("/queue/q", text("x", evil="a\x00b"))
            with pytest.raises(PublishRefused):
                bus.publish("/queue/q", text("x", destination="/queue/elsewhere"))
            if version == "1.0":
                with pytest.raises(PublishRefused):
                    bus.publish("/queue/q", text("x", evil="a\ndestination:/queue/elsewhere"))
            bus.publish("/queue/q", text("good"))


def test_a_receipt_with_more_headers_confirms_like_any_other() -> None:
    with WordyServer(b"\xff never") as server, running(fast(server.address)) as bus:
        bus.publish("/queue/q", text("x"))


@pytest.mark.parametrize(
    "bad", [frame({"subject": "\udcff"}, b""), frame({"\udcff": "x"}, b""), frame({"n": 5}, b""), frame({}, "text")]
)
def test_a_message_that_cannot_be_written_is_refused_alone(broker: EmbeddedBroker, bad: Frame) -> None:
    with running(fast(broker.address)) as bus:
        futures = [bus.publish_nowait("/queue/q", each) for each in (text("a"), bad, text("b"))]
        futures[0].result(30)
        futures[2].result(30)
        with pytest.raises(PublishRefused, match="cannot be written"):
            futures[1].result(30)
        with pytest.raises(PublishRefused, match="cannot be written"):
            bus.publish("/queue/q", bad)
        assert bus.counters.losses == 0
    assert [f.body for f in broker.peek("/queue/q")] == [b"a", b"b"]


def test_a_ttl_may_be_infinite_and_must_be_a_number(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address)) as bus:
        with pytest.raises(PublishRefused, match="ttl"):
            bus.publish_nowait("/queue/q", text("x"), ttl=float("nan")).result(30)
        bus.publish("/queue/q", text("y"), ttl=float("inf"))
        bus.publish("/queue/q", text("z"), ttl=1e30)
    assert ["expires" in f.headers for f in broker.peek("/queue/q")] == [False, False]


def test_a_header_that_has_to_be_a_number_is_checked_before_it_costs_the_connection(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address)) as bus:
        for value in ("", "soon", "-1", "9" * 30):
            with pytest.raises(PublishRefused, match="expires"):
                bus.publish("/queue/q", text("x", expires=value))
        assert bus.counters.losses == 0
