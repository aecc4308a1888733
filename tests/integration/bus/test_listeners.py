"""Listeners: several programs in one process hear of the events of one bus."""

from __future__ import annotations

import os
import threading

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.bus.events import Closed, Connected, ConnectionLost, Event, Published
from deploykit.errors import BusClosed
from tests.support.bus import Events, fast, running, text
from tests.support.wait import wait_until


def test_each_listener_gets_every_event_in_order_whatever_others_raise(
    broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    def awful(_: Event) -> None:
        raise RuntimeError("no")

    first, second, third = Events(), Events(), Events()
    bus = Bus(fast(broker.address), on_event=first)
    bus.add_listener(awful)
    bus.add_listener(second)
    with bus:
        assert bus.wait_connected(30)
        bus.add_listener(third)
        ids = [str(number) for number in range(50)]
        for number in ids:
            bus.publish("/queue/q", text("x", **{"deploykit-id": number}))
        for events in (first, second, third):
            assert [event.id for event in events.wait(Published, len(ids))] == ids
        broker.faults.drop()
        third.wait(Connected, 2)
    wait_until(lambda: isinstance(third.seen[-1], Closed))
    assert first.seen == second.seen
    assert third.seen == first.seen[-len(third.seen) :]
    assert "a listener failed for Connected" in caplog.text


def test_a_listener_added_to_a_connected_bus_hears_of_the_connection_first(broker: EmbeddedBroker) -> None:
    late, nobody_before = Events(), Events()
    with running(fast(broker.address)) as bus:
        bus.add_listener(nobody_before)
        assert nobody_before.wait(Connected)[0].dialect == "embedded"
        broker.faults.drop()
        nobody_before.wait(Connected, 2)
        bus.add_listener(late)
        assert late.wait(Connected)[0] == nobody_before.of(Connected)[1]
        assert late.of(ConnectionLost) == []


def test_while_there_is_no_connection_a_listener_hears_of_none(broker: EmbeddedBroker) -> None:
    events = Events()
    with running(fast(broker.address)) as bus:
        broker.stop()
        wait_until(lambda: bus.problem is not None)
        bus.add_listener(events)
        events.wait(Event)
        assert events.of(Connected) == []


def test_a_removed_listener_gets_nothing_more_and_the_others_go_on(broker: EmbeddedBroker) -> None:
    removed, kept = Events(), Events()
    with running(fast(broker.address)) as bus:
        remove, _ = bus.add_listener(removed), bus.add_listener(kept)
        kept.wait(Connected)
        remove()
        remove()
        bus.publish("/queue/q", text("x"))
        kept.wait(Published)
    assert [type(event) for event in removed.seen] == [Connected]


def test_a_listener_may_remove_itself_and_add_another(broker: EmbeddedBroker) -> None:
    another, done = Events(), threading.Event()

    def once(_: Event) -> None:
        remove()
        bus.add_listener(another)
        done.set()

    bus = Bus(fast(broker.address))
    remove = bus.add_listener(once)
    with bus:
        assert done.wait(30)
        assert bus.wait_connected(30)
        another.wait(Connected)
        bus.publish("/queue/q", text("x"))
        another.wait(Published)
    assert len(another.of(Connected)) == 1


def test_without_a_listener_there_is_no_thread_for_events(broker: EmbeddedBroker) -> None:
    before = {thread.ident for thread in threading.enumerate()}

    def of_events() -> list[str]:
        new = [thread for thread in threading.enumerate() if thread.ident not in before]
        return [thread.name for thread in new if thread.name == "deploykit-bus-events"]

    with running(fast(broker.address)) as bus:
        bus.publish("/queue/q", text("x"))
        assert of_events() == []
        bus.add_listener(Events())
        assert of_events() == ["deploykit-bus-events"]
    wait_until(lambda: of_events() == [])


def test_a_bus_that_was_stopped_or_forked_takes_no_listener(broker: EmbeddedBroker) -> None:
    with running(fast(broker.address)) as bus:
        remove = bus.add_listener(Events())
        with bus._events._lock:
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    with pytest.raises(BusClosed):
                        bus.add_listener(Events())
                    remove()
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    with pytest.raises(BusClosed):
        bus.add_listener(Events())
