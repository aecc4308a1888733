"""The life of a bus: stopping, forking, callbacks that misbehave, subscriptions that end, values it refuses."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus, BusState, Delivery
from deploykit.bus.events import Connected
from deploykit.errors import BusClosed, UsageError
from tests.support.bus import Collector, bus_threads, fast, running, text
from tests.support.wait import wait_until


def test_stop_lets_the_running_handler_finish_and_hands_the_rest_back(broker: EmbeddedBroker) -> None:
    started = threading.Event()

    def slow(_: Delivery) -> None:
        started.set()
        wait_until(lambda: bus.state is BusState.CLOSED)  # `stop` has begun
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
    assert time.monotonic() - started < 40
    assert isinstance(future.exception(60), BusClosed)
    wait_until(lambda: bus_threads() == [])
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
    wait_until(lambda: bus_threads() == [])
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
    wait_until(lambda: bus_threads() == [])
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
        with bus._lock, bus._services._lock, bus._unconfirmed._lock, bus._supervisor._lock, bus._supervisor.changed:
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
            wait_until(has_ended, "the child's end")
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
        wait_until(lambda: bus.counters.acked == 1)
        wait_until(lambda: broker.stats().subscriptions == 0)
        wait_until(lambda: [f.body for f in broker.peek("/queue/q")] == [b"second"])
    assert collector.bodies == ["first"]
    wait_until(lambda: bus_threads() == [])


def test_unsubscribe_hands_back_what_waits(broker: EmbeddedBroker) -> None:
    started = threading.Event()

    def slow(_: Delivery) -> None:
        started.set()
        wait_until(lambda: bus._services.subscriptions[0].stopping)

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
    wait_until(lambda: descriptors() <= before)


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
    wait_until(lambda: bus_threads() == [])


def test_an_unknown_way_to_fail_is_refused(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address)) as bus, pytest.raises(UsageError, match="dead-letter"):
        bus.subscribe("/queue/q", Collector(), on_failure="dead_letter")  # type: ignore[arg-type]  # misspelt


def test_settings_that_make_no_sense_are_all_said_at_once() -> None:
    from deploykit.errors import SettingsError

    bad = attrs.evolve(fast("stomp://h"), versions=("1.3",), window=0, heartbeat=-1, login="a\nb")
    with pytest.raises(SettingsError) as caught:
        Bus(bad)
    assert len(caught.value.problems) == 4
