"""What networks and brokers do to a bus, one fault a test, on the embedded broker. What must happen is in the names."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Ack, Bus, BusState, Delivery, Reject, Retry, Subscription, subscriptions
from deploykit.bus.events import BrokerReportedError, Connected, ConnectFailed, ConnectionLost, DeadLettered, Subscribed
from deploykit.errors import BusClosed, ConnectError, LoginRefused, PublishError, PublishRefused, UsageError, WindowFull
from deploykit.system.backoff import Backoff
from deploykit.system.hosts import look_up
from deploykit.testing.proxy import FaultProxy
from deploykit.wire.frame import Frame
from tests.support.bus import Collector, Events, bus_threads, eventually, fast, in_time, quiet, running, text


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(users={"ada": "s3cret"}, record=10_000) as embedded:
        yield embedded


def frame(headers: object, body: object) -> Frame:
    """A frame as a caller without a type checker makes it."""
    return Frame(headers, body)  # type: ignore[arg-type]  # wrong on purpose


@contextmanager
def proxied(broker: EmbeddedBroker) -> Iterator[FaultProxy]:
    with FaultProxy(broker.port) as proxy:
        yield proxy


def through(proxy: FaultProxy) -> str:
    return proxy.address_for("ada:s3cret")


# -- connecting ---------------------------------------------------------------------------------------------------


def test_a_broker_that_comes_up_late_is_found(broker: EmbeddedBroker) -> None:
    broker.stop()
    with Bus(fast(broker.address)) as bus:
        future = bus.publish_nowait("/queue/q", text("early"))
        assert not bus.wait_connected(0.3)
        broker.start()
        future.result(30)
    assert [f.body for f in broker.peek("/queue/q")] == [b"early"]


def test_connect_without_an_answer_ends_in_time_and_the_next_broker_is_tried(broker: EmbeddedBroker) -> None:
    with EmbeddedBroker(users={"ada": "s3cret"}) as mute:
        mute.faults.mute_connect()
        address = f"failover:({mute.address},{broker.address})?randomize=false"
        events = Events()
        with running(
            fast(address, connect_timeout=1.0), on_event=events
        ) as bus:  # within 30 s, the mute one never would
            bus.publish("/queue/q", text("x"))
            assert "no answer to CONNECT" in events.wait(ConnectFailed)[0].problem


def test_all_brokers_dead_and_one_back_is_enough(broker: EmbeddedBroker) -> None:
    with EmbeddedBroker(users={"ada": "s3cret"}) as other:
        events = Events()
        address = f"failover:({other.address},{broker.address})"
        with running(fast(address), on_event=events) as bus:
            other.kill()
            broker.kill()
            events.wait(ConnectionLost)
            broker.start()
            events.wait(Connected, 2)
            bus.publish("/queue/q", text("x"))


def test_service_is_back_within_a_second_of_the_port_opening(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address, backoff_max=0.5)) as bus:

        def back() -> float:
            broker.kill()
            failures = bus.counters.connect_failures
            eventually(lambda: bus.counters.connect_failures >= failures + 6)  # the back-off is at its ceiling
            broker.start()
            opened = time.monotonic()
            bus.publish("/queue/q", text("x"))
            return time.monotonic() - opened

        in_time(1.0, back)


def test_a_wrong_passcode_is_said_at_once_and_never_shown(
    broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    events = Events()
    address = f"stomp://ada:canary-in-address@127.0.0.1:{broker.port}"
    with Bus(fast(address), on_event=events) as bus:
        with pytest.raises(LoginRefused) as caught:
            bus.wait_connected(30)
        with pytest.raises(LoginRefused):
            bus.publish("/queue/q", text("x"), timeout=0.5)
        shown = [repr(bus), repr(bus.settings), str(caught.value), repr(caught.value), *map(repr, events.seen)]
    assert "canary" not in " ".join(shown) + caplog.text


def test_a_login_that_is_refused_while_a_message_waits_ends_the_wait(broker: EmbeddedBroker) -> None:
    with Bus(fast(f"stomp://ada:wrong@127.0.0.1:{broker.port}")) as bus, pytest.raises(LoginRefused):
        bus.publish("/queue/q", text("x"), timeout=3600)


def test_the_zone_of_a_link_local_address_is_kept() -> None:
    (address,) = look_up("fe80::1%lo", 9, 60)
    assert address.sockaddr[1:] == (9, 0, socket.if_nametoindex("lo"))


def test_a_login_that_was_good_once_is_tried_again_for_ever(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address)) as bus:
        broker._users = {"ada": "changed"}
        broker.restart()
        eventually(lambda: isinstance(bus._supervisor.problem, LoginRefused))
        with pytest.raises(PublishError, match="refused the login"):
            bus.publish("/queue/q", text("x"), timeout=0.3)
        broker._users = {"ada": "s3cret"}
        broker.restart()
        bus.publish("/queue/q", text("x"))


def test_a_port_that_speaks_something_else_gets_a_clear_line() -> None:
    with raw_server(b"SSH-2.0-OpenSSH_9.2\r\n") as port, Bus(fast(f"stomp://127.0.0.1:{port}")) as bus:
        eventually(lambda: bus._supervisor.problem is not None)
        assert "not STOMP" in str(bus._supervisor.problem)


# -- publishing ---------------------------------------------------------------------------------------------------


def test_a_broker_that_dies_between_send_and_receipt_gets_the_message_again_with_the_same_id(
    broker: EmbeddedBroker,
) -> None:
    with running(fast(broker.address)) as bus:
        broker.faults.withhold_receipts()
        futures = [bus.publish_nowait("/queue/q", text(str(n))) for n in range(20)]
        eventually(lambda: len(broker.sent("/queue/q")) == 20)
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
        next_unsent, lost, written = bus._ledger.next_unsent, bus._ledger.connection_lost, threading.Event()

        def slowly() -> object:
            if threading.current_thread() is threading.main_thread():
                broker.faults.drop()
                written.wait(1)  # for the supervisor to have noticed
            return next_unsent()

        def noticed(*, by_broker: bool) -> None:
            lost(by_broker=by_broker)
            written.set()

        monkeypatch.setattr(bus._ledger, "next_unsent", slowly)
        monkeypatch.setattr(bus._ledger, "connection_lost", noticed)
        bus.publish("/queue/q", text("x"), timeout=10)
        assert written.is_set()


def test_a_receipt_that_never_comes_is_an_error_in_time(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address, publish_timeout=3600.0)) as bus:
        broker.faults.withhold_receipts()
        started = time.monotonic()
        with pytest.raises(PublishError, match="no receipt"):
            bus.publish("/queue/q", text("x"), timeout=0.3)
        assert 0.25 < time.monotonic() - started < 8


def test_a_broker_that_stops_reading_but_beats_fails_publishes_at_their_deadline_and_keeps_the_connection(
    broker: EmbeddedBroker,
) -> None:
    with running(fast(broker.address)) as bus:
        broker.faults.stop_reading()
        for _ in range(3):
            started = time.monotonic()
            with pytest.raises(PublishError):
                bus.publish("/queue/q", text("x" * 1000), timeout=0.8)  # three of these are a silence too long
            assert time.monotonic() - started < 8
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
        assert time.monotonic() - started < 9
    eventually(lambda: bus_threads() == [])


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


# -- liveness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
def test_a_black_hole_is_noticed_within_two_heart_beats(broker: EmbeddedBroker, version: str) -> None:
    with proxied(broker) as proxy:
        events = Events()
        with running(fast(through(proxy), versions=(version,), heartbeat=0.4), on_event=events) as bus:

            def noticed() -> float:
                time.sleep(0.5)
                losses = len(events.of(ConnectionLost))
                proxy.black_hole()
                began = time.monotonic()
                events.wait(ConnectionLost, losses + 1)
                took = time.monotonic() - began
                proxy.clear()
                proxy.drop()
                bus.publish("/queue/q", text("x"), timeout=30)
                return took

            in_time(2 * 0.4 + 0.2, noticed)


def test_a_half_open_connection_is_noticed(broker: EmbeddedBroker) -> None:
    with proxied(broker) as proxy:
        events = Events()
        with running(fast(through(proxy)), on_event=events) as bus:
            proxy.half_open("client")
            bus.publish("/queue/q", text("x"), timeout=30)
            events.wait(ConnectionLost)


def test_a_frozen_broker_that_refuses_heart_beats_is_noticed_by_the_probe(broker: EmbeddedBroker) -> None:
    broker.faults.refuse_heartbeats()
    events = Events()
    with running(fast(broker.address, heartbeat=0.8), on_event=events) as bus:
        assert "emulated" in events.wait(Connected)[0].beats
        quiet(bus.counters, 3.0)
        assert bus.counters.probes_sent >= 2

        def noticed() -> float:
            losses = len(events.of(ConnectionLost))
            broker.faults.freeze()
            began = time.monotonic()
            events.wait(ConnectionLost, losses + 1)
            took = time.monotonic() - began
            broker.faults.freeze(False)
            bus.publish("/queue/q", text("x"), timeout=30)
            return took

        in_time(2 * 0.8 + 0.2, noticed)


def test_a_broker_that_promises_beats_and_sends_none_is_left(broker: EmbeddedBroker) -> None:
    events = Events()
    with running(fast(broker.address), on_event=events):
        broker.faults.heartbeats_off()
        events.wait(ConnectionLost)


@pytest.mark.parametrize("refuse", [False, True], ids=["native", "emulated"])
def test_an_idle_connection_survives_ten_times_a_firewalls_patience(broker: EmbeddedBroker, refuse: bool) -> None:
    broker.faults.refuse_heartbeats(refuse)
    with proxied(broker) as proxy, running(fast(through(proxy), heartbeat=0.7)) as bus:
        proxy.forget_idle(1.5)
        quiet(bus.counters, 15)
        bus.publish("/queue/q", text("x"), timeout=30)


def test_a_slow_handler_costs_nothing(broker: EmbeddedBroker) -> None:
    def slow(_: Delivery) -> None:
        time.sleep(2.0)

    with running(fast(broker.address)) as bus:
        bus.subscribe("/queue/q", slow)
        bus.publish("/queue/q", text("x"))
        eventually(lambda: bus.counters.acked == 1)
        assert bus.counters.losses == 0
        assert bus.counters.stale_acks == 0


# -- what comes in ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "noise", [b"\xff\xfe garbage \n\n\0", b"MESSAGE\nno colon\n\n\0", b"MESSAGE\ncontent-length:x\n\n\0", b"\x00" * 10]
)
def test_garbled_input_costs_the_connection_and_nothing_else(broker: EmbeddedBroker, noise: bytes) -> None:
    collector = Collector()
    with running(fast(broker.address)) as bus:
        bus.subscribe("/queue/q", collector)
        bus.publish("/queue/q", text("before"))
        broker.faults.garble(noise)
        bus.publish("/queue/q", text("after"))
        collector.wait(2)
        assert collector.bodies == ["before", "after"]


def test_an_endless_frame_ends_the_connection_with_memory_flat(broker: EmbeddedBroker) -> None:
    events = Events()
    with running(fast(broker.address, max_frame=100_000), on_event=events) as bus:
        broker.faults.oversize(8_000_000)
        (lost,) = events.wait(ConnectionLost)
        assert "100000 bytes" in lost.reason
        assert bus.counters.bytes_received < 400_000
        bus.publish("/queue/q", text("x"))


def test_a_message_over_the_limit_is_put_aside_and_the_next_one_is_handled(broker: EmbeddedBroker) -> None:
    collector = Collector()
    with running(fast(broker.address, max_frame=50_000)) as bus:
        bus.subscribe("/queue/q", collector)
        bus.publish("/queue/q", text("x" * 200_000))
        bus.publish("/queue/q", text("small"))
        collector.wait(1)
        assert collector.bodies == ["small"]
        assert bus.counters.oversized == 1
        assert bus.counters.losses == 0
    assert len(broker.peek("/queue/DLQ.q")[0].body) == 200_000


def test_slow_slices_of_a_frame_are_put_together(broker: EmbeddedBroker) -> None:
    collector = Collector()
    with proxied(broker) as proxy:
        proxy.slices(1)
        with running(fast(through(proxy), heartbeat=5.0)) as bus:
            bus.subscribe("/queue/q", collector)
            bus.publish("/queue/q", text("sliced\x00body"))
            assert collector.wait(1)[0].body == b"sliced\x00body"


def test_an_error_frame_that_belongs_to_nothing_is_told_and_survived(broker: EmbeddedBroker) -> None:
    events = Events()
    with running(fast(broker.address), on_event=events) as bus:
        broker.faults.send_error("strange", close=False)
        assert events.wait(BrokerReportedError)[0].problem == "strange"
        broker.faults.send_error("fatal", close=True)
        bus.publish("/queue/q", text("x"))


def test_what_a_broker_says_cannot_reach_a_terminal_or_begin_a_line_of_a_log(
    broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    events = Events()
    with running(fast(broker.address), on_event=events) as bus:
        broker.faults.send_error("\x1b[2Jwiped\u202e\nERROR forged", close=False)
        (said,) = events.wait(BrokerReportedError)
        broker.faults.error_next("SEND", "\x1b[31mno\r\nforged", close=True)
        with pytest.raises(PublishRefused) as refused:
            bus.publish("/queue/q", text("x"))
    for shown in (said.problem, str(refused.value), *(record.getMessage() for record in caplog.records)):
        assert shown.isprintable(), ascii(shown)


# -- handling -----------------------------------------------------------------------------------------------------


def test_a_poison_message_is_handled_exactly_so_often_and_then_a_dead_letter(broker: EmbeddedBroker) -> None:
    def fail(delivery: Delivery) -> None:
        raise Retry(0.01) if delivery.attempt < 3 else ValueError("secret text")

    collector, events, dead = Collector(fail), Events(), Collector()
    with running(fast(broker.address), on_event=events) as bus:
        bus.subscribe("/queue/q", collector, max_attempts=4)
        bus.subscribe(bus.settings.dead_letter, dead)
        bus.publish("/queue/q", text("poison", subject="s"))
        (letter,) = dead.wait(1)
        assert [d.attempt for d in collector.deliveries] == [1, 2, 3, 4]
        assert letter.body == b"poison"
        assert letter.headers["original-destination"] == "/queue/q"
        assert letter.headers["dead-letter-attempts"] == "4"
        assert "ValueError" in letter.headers["dead-letter-reason"]
        assert "secret" not in letter.headers["dead-letter-reason"]
        assert letter.headers["subject"] == "s"
        assert letter.id == collector.deliveries[0].id
        eventually(lambda: len(events.of(DeadLettered)) == 1)  # events are told on a thread of their own
    assert broker.peek("/queue/q") == ()


def test_attempts_are_counted_over_reconnects(broker: EmbeddedBroker) -> None:
    def fail(_: Delivery) -> Retry:
        threading.Thread(target=broker.faults.drop).start()
        return Retry(2)  # of the copy at work: one that comes again beside it waits for its verdict

    collector, dead = Collector(fail), Collector()
    with running(fast(broker.address)) as bus:
        bus.subscribe("/queue/q", collector, max_attempts=3)
        bus.subscribe(bus.settings.dead_letter, dead)
        bus.publish("/queue/q", text("poison"))
        dead.wait(1)
        assert len(collector) == 3


@pytest.mark.parametrize(("verdict", "left"), [(Ack(), 0), (Reject("no"), 0), (None, 0)])
def test_verdicts_may_be_returned_or_raised(broker: EmbeddedBroker, verdict: Ack | Reject | None, left: int) -> None:
    def raises(_: Delivery) -> None:
        if verdict is not None:
            raise verdict

    with running(fast(broker.address)) as bus:
        returned = Collector(lambda _: verdict)
        bus.subscribe("/queue/returned", returned, on_failure="drop")
        bus.subscribe("/queue/raised", raises, on_failure="drop")
        bus.publish("/queue/returned", text("x"))
        bus.publish("/queue/raised", text("x"))
        eventually(lambda: bus.counters.acked == 2)
    assert len(broker.peek("/queue/returned")) == left


def test_a_reason_may_be_the_exception_itself(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address)) as bus:
        bus.subscribe("/queue/q", lambda _: Reject(ValueError("no such site")))  # type: ignore[arg-type]  # as handlers do
        bus.publish("/queue/q", text("x"))
        eventually(lambda: bus.counters.acked == 1)
    (dead,) = broker.peek(bus.settings.dead_letter)
    assert dead.headers["dead-letter-reason"] == "no such site"


def test_a_handler_that_returns_nonsense_or_exits_does_not_end_its_worker(broker: EmbeddedBroker) -> None:
    def bad(delivery: Delivery) -> None:
        if delivery.body == b"exit":
            raise SystemExit(1)
        if delivery.body == b"nonsense":
            return True  # type: ignore[return-value]
        return None

    collector = Collector(bad)
    with running(fast(broker.address)) as bus:
        bus.subscribe("/queue/q", collector, max_attempts=1, on_failure="drop")
        for body in ("exit", "nonsense", "good"):
            bus.publish("/queue/q", text(body))
        collector.wait(3)
        eventually(lambda: bus.counters.acked == 3)
        assert bus.counters.dropped == 2


def test_requeue_gives_the_message_to_somebody_else_without_a_hot_loop(broker: EmbeddedBroker) -> None:
    collector = Collector(lambda _: Reject("not mine"))
    with running(fast(broker.address)) as bus:
        bus.subscribe("/queue/q", collector, on_failure="requeue")
        bus.publish("/queue/q", text("x"))
        eventually(lambda: len(collector) >= 2)
        began = time.monotonic()
        assert bus.counters.handed_back >= 1
        time.sleep(0.5)
        assert len(collector) <= 3 + (time.monotonic() - began), "it goes round about once in a second"
    assert len(broker.peek("/queue/q")) == 1


def test_an_acknowledgement_goes_only_to_the_connection_that_delivered(broker: EmbeddedBroker) -> None:
    """The embedded broker ends a connection that acknowledges what it was not given, so a stray ack would show."""
    release = threading.Event()
    collector = Collector(lambda _: _after(release))
    with running(fast(broker.address)) as bus:
        bus.subscribe("/queue/q", collector)
        bus.publish("/queue/q", text("x"))
        collector.wait(1)
        broker.faults.drop()
        eventually(lambda: bus.counters.connects == 2)
        release.set()
        eventually(lambda: bus.counters.acked == 1)
        assert bus.counters.stale_acks == 1
        assert bus.counters.duplicates == 1
        assert bus.counters.losses == 1
        assert len(collector) == 1  # the copy that came again was recognised, while the first was in work
    assert broker.peek("/queue/q") == ()


def test_a_lost_acknowledgement_is_made_good_without_handling_twice(broker: EmbeddedBroker) -> None:
    collector = Collector()
    with running(fast(broker.address)) as bus:
        bus.subscribe("/queue/q", collector)
        broker.faults.lose_acks(5)
        for n in range(5):
            bus.publish("/queue/q", text(str(n)))
        eventually(lambda: broker._fault_state.lose_acks == 0)
        broker.faults.drop()
        eventually(lambda: bus.counters.duplicates == 5)
        assert len(collector) == 5
    assert broker.peek("/queue/q") == ()


def test_a_durable_subscription_loses_nothing_over_a_crash_of_the_broker(tmp_path: Path) -> None:
    with EmbeddedBroker(users={"ada": "s3cret"}, data=tmp_path) as broker:
        collector = Collector()
        with running(fast(broker.address)) as bus:
            assert bus.subscribe("/topic/t", collector, durable="d").wait_active(30)
        with running(fast(broker.address)) as bus:
            for n in range(50):
                bus.publish("/topic/t", text(str(n)))
        broker.restart()
        with running(fast(broker.address)) as bus:
            bus.subscribe("/topic/t", collector, durable="d")
            collector.wait(50)
            broker.restart()
            bus.publish("/topic/t", text("after"))
            collector.wait(51)
        assert collector.bodies == [*map(str, range(50)), "after"]


def test_a_flood_beyond_the_bound_stops_reading_and_nothing_is_lost() -> None:
    """A broker that knows no prefetch: we bound what is in memory by not reading, and catch up later."""
    hold = threading.Event()
    collector = Collector(lambda _: _after(hold))
    with FloodServer(5000) as server, Bus(fast(server.address)) as bus:
        bus.subscribe("/queue/q", collector)
        eventually(lambda: bus.counters.received > 900)
        time.sleep(0.3)
        assert bus.counters.received < 4000
        hold.set()
        eventually(lambda: len(collector) == 5000)
        assert [int(body) for body in collector.bodies] == list(range(5000))


@pytest.mark.parametrize("end", [lambda bus, _: bus.stop(20), lambda _, subscription: subscription.unsubscribe()])
def test_what_ends_under_a_flood_does_not_wait_for_an_answer_behind_what_is_not_read(
    end: Callable[[Bus, Subscription], None],
) -> None:
    """More than fits between the broker and us: it reads our goodbye when we have read what it wrote before."""
    with FloodServer(3000, 8000) as server, Bus(fast(server.address, connect_timeout=20)) as bus:
        subscription = bus.subscribe("/queue/q", lambda _: time.sleep(0.001))
        eventually(lambda: subscription.queued >= 1000)
        began = time.monotonic()
        end(bus, subscription)
        assert time.monotonic() - began < 10


def test_a_refused_subscription_is_tried_again_and_does_not_disturb_the_others(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After so long that whoever waits gets to see the refusal.
    monkeypatch.setattr(subscriptions, "_RESUBSCRIBE", Backoff(initial=5.0, maximum=5.0, minimum=5.0))
    good, late = Collector(), Collector()
    with running(fast(broker.address)) as bus:
        assert bus.subscribe("/queue/good", good).wait_active(30)
        broker.faults.error_next("SUBSCRIBE", "not now", close=False)
        subscription = bus.subscribe("/queue/late", late)
        with pytest.raises(ConnectError, match="not now"):
            subscription.wait_active(30)
        bus.publish("/queue/good", text("x"))
        bus.publish("/queue/late", text("y"))
        good.wait(1)
        late.wait(1)
        assert bus.counters.losses == 0


def test_a_subscription_that_ends_connections_is_tried_alone() -> None:
    with PoisonServer(b"/queue/forbidden") as server:
        events = Events()
        with Bus(fast(server.address), on_event=events) as bus:
            bad = bus.subscribe("/queue/forbidden", Collector())
            good = bus.subscribe("/queue/good", Collector())
            eventually(lambda: good.active)
            eventually(lambda: bad.problem is not None)
            bus.publish("/queue/q", text("x"), timeout=30)
            eventually(lambda: any(event.destination == "/queue/good" for event in events.of(Subscribed)))


# -- life ---------------------------------------------------------------------------------------------------------


def test_stop_lets_the_running_handler_finish_and_hands_the_rest_back(broker: EmbeddedBroker) -> None:
    started = threading.Event()

    def slow(_: Delivery) -> None:
        started.set()
        eventually(lambda: bus.state is BusState.CLOSED)  # `stop` has begun
        time.sleep(0.2)

    collector = Collector(slow)
    with running(fast(broker.address)) as bus:
        for n in range(10):
            bus.publish("/queue/q", text(str(n)))
        bus.subscribe("/queue/q", collector)
        assert started.wait(30)
    assert len(collector) == 1
    assert [f.body for f in broker.peek("/queue/q")] == [str(n).encode() for n in range(1, 10)]


def test_stop_waits_for_the_last_receipts(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address)) as bus:
        futures = [bus.publish_nowait("/queue/q", text(str(n))) for n in range(500)]
    assert all(future.exception() is None for future in futures)
    assert len(broker.peek("/queue/q")) == 500


def test_stop_ends_in_time_whatever_the_broker_does(broker: EmbeddedBroker) -> None:
    bus = Bus(fast(broker.address, heartbeat=0.0)).start()
    assert bus.wait_connected(30)
    broker.faults.freeze()
    future = bus.publish_nowait("/queue/q", text("x"))
    started = time.monotonic()
    bus.stop(0.5)
    assert time.monotonic() - started < 9
    assert isinstance(future.exception(60), BusClosed)
    eventually(lambda: bus_threads() == [])
    with pytest.raises(BusClosed):
        bus.publish("/queue/q", text("x"))


def test_stop_while_dialling_ends_at_once() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        bus = Bus(fast(f"stomp://127.0.0.1:{silent.getsockname()[1]}", connect_timeout=3600)).start()
        time.sleep(0.1)
        started = time.monotonic()
        bus.stop()
        assert time.monotonic() - started < 30  # and not the hour that dialling may take
    eventually(lambda: bus_threads() == [])
    assert bus.state is BusState.CLOSED


def test_stop_may_be_called_by_a_handler_and_twice(broker: EmbeddedBroker) -> None:
    done = threading.Event()

    def stopper(_: Delivery) -> None:
        bus.stop(2)
        done.set()

    bus = Bus(fast(broker.address)).start()
    bus.subscribe("/queue/q", stopper)
    bus.publish("/queue/q", text("x"))
    assert done.wait(30)
    bus.stop()
    eventually(lambda: bus_threads() == [])
    assert broker.peek("/queue/q") == ()  # its message was acknowledged all the same


def test_a_callback_that_raises_or_hangs_harms_nobody(broker: EmbeddedBroker) -> None:
    hang = threading.Event()

    def awful(event: object) -> None:
        if isinstance(event, Connected):
            raise RuntimeError("no")  # noqa: TRY004 -- what is raised is not the point
        hang.wait(120)

    with Bus(fast(broker.address), on_event=awful) as bus:
        try:
            assert bus.wait_connected(30)
            for n in range(100):
                bus.publish("/queue/q", text(str(n)), timeout=30)
        finally:
            hang.set()


def test_a_forked_child_cannot_disturb_the_bus_of_its_parent(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address)) as bus:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                bus.publish("/queue/q", text("from the child"))
            except BusClosed:
                bus.stop()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        bus.publish("/queue/q", text("from the parent"))
        assert bus.counters.losses == 0


def test_a_forked_child_waits_for_no_lock_that_a_thread_of_its_parent_held(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address)) as bus:
        subscription = bus.subscribe("/queue/q", Collector())
        with bus._lock, bus._ledger._lock, bus._supervisor._lock, bus._supervisor.changed:
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    with pytest.raises(BusClosed):
                        subscription.unsubscribe()
                    bus.stop()
                    code = 0
                finally:
                    os._exit(code)
        ended: list[int] = []

        def has_ended() -> bool:
            found, status = os.waitpid(pid, os.WNOHANG)
            ended.extend([os.waitstatus_to_exitcode(status)] if found else [])
            return bool(ended)

        try:
            eventually(has_ended, "the child's end")
        finally:
            if not ended:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        assert ended == [0]


def test_a_handler_may_unsubscribe_and_its_message_is_acknowledged(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address)) as bus:
        collector = Collector(lambda _: subscription.unsubscribe())
        subscription = bus.subscribe("/queue/q", collector)
        bus.publish_many([("/queue/q", text("first")), ("/queue/q", text("second"))])
        eventually(lambda: bus.counters.acked == 1)
        eventually(lambda: broker.stats().subscriptions == 0)
        eventually(lambda: [f.body for f in broker.peek("/queue/q")] == [b"second"])
    assert collector.bodies == ["first"]
    eventually(lambda: bus_threads() == [])


def test_unsubscribe_hands_back_what_waits(broker: EmbeddedBroker) -> None:
    started = threading.Event()

    def slow(_: Delivery) -> None:
        started.set()
        eventually(lambda: bus._subscriptions[0].stopping)

    with running(fast(broker.address)) as bus:
        subscription = bus.subscribe("/queue/q", slow)
        for n in range(5):
            bus.publish("/queue/q", text(str(n)))
        assert started.wait(30)
        subscription.unsubscribe()
        collector = Collector()
        bus.subscribe("/queue/q", collector)
        collector.wait(4)
        assert sorted(collector.bodies) == ["1", "2", "3", "4"]


def test_the_bus_leaves_no_descriptor_behind(broker: EmbeddedBroker) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with running(fast(broker.address)):
        pass
    before = descriptors()
    for _ in range(5):
        with running(fast(broker.address)) as bus:
            broker.faults.drop()
            bus.publish("/queue/q", text("x"))
    eventually(lambda: descriptors() <= before)


# -- servers of our own, where the embedded broker is too well-behaved -----------------------------------------------


def _after(event: threading.Event) -> None:
    event.wait(60)


@contextmanager
def raw_server(greeting: bytes) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    peer.sendall(greeting)
                    peer.settimeout(1)
                    try:
                        peer.recv(1000)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(60)


class PoisonServer:
    """The least of a broker: confirms everything, but closes when it reads the poison, without a word."""

    def __init__(self, poison: bytes) -> None:
        self._poison = poison
        self._server = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    @property
    def address(self) -> str:
        return f"stomp://127.0.0.1:{self._server.getsockname()[1]}"

    def __enter__(self) -> PoisonServer:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(60)

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._server.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(peer,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: socket.socket) -> None:
        data = b""
        with peer:
            while True:
                try:
                    chunk = peer.recv(65536)
                except OSError:
                    return
                if not chunk:
                    return
                data += chunk
                while b"\x00" in data:
                    frame, _, data = data.partition(b"\x00")
                    frame = frame.lstrip(b"\n")
                    if self._poison in frame:
                        return
                    self._answer(peer, frame)

    def _answer(self, peer: socket.socket, frame: bytes) -> None:
        if frame.startswith(b"CONNECT"):
            peer.sendall(b"CONNECTED\nversion:1.2\n\n\x00")
        for line in frame.partition(b"\n\n")[0].split(b"\n"):
            if line.startswith(b"receipt:"):
                peer.sendall(b"RECEIPT\nreceipt-id:" + line[8:] + b"\n\n\x00")


class FloodServer(PoisonServer):
    """Sends many messages as soon as somebody subscribes, whatever he can take."""

    def __init__(self, count: int, size: int = 0) -> None:
        super().__init__(b"\xff never")
        self._count = count
        self._size = size

    def _answer(self, peer: socket.socket, frame: bytes) -> None:
        super()._answer(peer, frame)
        if frame.startswith(b"SUBSCRIBE"):
            for n in range(self._count):
                body = str(n).ljust(self._size).encode()
                peer.sendall(
                    b"MESSAGE\nsubscription:deploykit-1\nmessage-id:%d\nack:%d\ndestination:/queue/q\n"
                    b"content-length:%d\n\n%s\x00" % (n, n, len(body), body)
                )


class WordyServer(PoisonServer):
    """Puts more into a RECEIPT than it has to."""

    def _answer(self, peer: socket.socket, frame: bytes) -> None:
        if b"\nreceipt:" in frame:
            receipt = frame.partition(b"\nreceipt:")[2].partition(b"\n")[0]
            peer.sendall(b"RECEIPT\ncontent-length:0\nreceipt-id:" + receipt + b"\n\n\x00")
        else:
            super()._answer(peer, frame)


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


def test_a_timeout_may_be_infinite_and_must_be_a_number(broker: EmbeddedBroker) -> None:
    forever = float("inf")
    with Bus(fast(broker.address)) as bus:
        assert bus.wait_connected(forever)
        bus.publish("/queue/q", text("x"), timeout=forever)
        bus.publish_nowait("/queue/q", text("x"), timeout=forever).result(30)
        assert bus.publish_many([("/queue/q", text("x"))], timeout=forever) == 1
        collector = Collector()
        subscription = bus.subscribe("/queue/q", collector)
        assert subscription.wait_active(forever)
        collector.wait(3)
        subscription.unsubscribe(timeout=forever)
        for call in (bus.wait_connected, lambda t: bus.publish("/queue/q", text("x"), timeout=t)):
            with pytest.raises(UsageError, match="not a number"):
                call(float("nan"))
        bus.stop(forever)
    eventually(lambda: bus_threads() == [])


def test_an_unknown_way_to_fail_is_refused(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address)) as bus, pytest.raises(UsageError, match="dead-letter"):
        bus.subscribe("/queue/q", Collector(), on_failure="dead_letter")  # type: ignore[arg-type]  # misspelt


def test_settings_that_make_no_sense_are_all_said_at_once() -> None:
    from deploykit.errors import SettingsError

    bad = attrs.evolve(fast("stomp://h"), versions=("1.3",), window=0, heartbeat=-1, login="a\nb")
    with pytest.raises(SettingsError) as caught:
        Bus(bad)
    assert len(caught.value.problems) == 4
