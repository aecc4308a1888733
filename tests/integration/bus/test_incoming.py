"""What a broker sends: garbage, too much, slices, errors. It costs the connection at most."""

from __future__ import annotations

import logging

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus.events import BrokerReportedError, ConnectionLost
from deploykit.errors import PublishRefused
from tests.support.bus import Collector, Events, fast, running, text
from tests.support.faults import proxied, through


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
        assert (
            events.wait(BrokerReportedError)[0].problem == "strange: planned by a fault switch of the embedded broker"
        )
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
