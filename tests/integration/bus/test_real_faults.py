"""What RabbitMQ and ActiveMQ do to a bus when they are killed, frozen, cut off or short of memory."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus, BusState
from deploykit.bus.events import Connected, ConnectFailed, ConnectionLost
from deploykit.errors import PublishError, PublishRefused
from deploykit.settings import BusSettings
from deploykit.testing.proxy import FaultProxy
from tests.brokers.rabbitmq import RabbitMQ
from tests.brokers.server import BrokerServer
from tests.support.bus import UNHURRIED, Collector, Events, in_time, quiet, running, text
from tests.support.wait import wait_until

pytestmark = [pytest.mark.slow]


def settings(address: str, **changes: object) -> BusSettings:
    base = BusSettings(address=address, heartbeat=1.0, backoff_max=0.5, connect_timeout=3.0, client_id="faults")
    return attrs.evolve(base, **changes)  # type: ignore[arg-type]


def line(
    broker: BrokerServer, proxy: FaultProxy, *, heartbeat: float = 1.0, on_event: Events | None = None
) -> AbstractContextManager[Bus]:
    """A connected bus on the other side of the proxy."""
    address = proxy.address_for(f"{broker.login}:{broker.passcode}")
    return running(settings(address, client_id="", heartbeat=heartbeat), on_event=on_event)


class Publisher:
    """Publishes numbers until told to stop; knows which were confirmed."""

    def __init__(self, bus: Bus, destination: str) -> None:
        self.confirmed: list[int] = []
        self.failed: list[int] = []
        self._bus = bus
        self._destination = destination
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def has_confirmed(self, count: int) -> bool:
        """Whether so many are confirmed."""
        return len(self.confirmed) >= count

    def __enter__(self) -> Publisher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(300)

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            futures = []
            for _ in range(20):
                futures.append((number, self._bus.publish_nowait(self._destination, text(str(number)), timeout=180)))
                number += 1
            for sent, future in futures:
                (self.confirmed if future.exception() is None else self.failed).append(sent)


@pytest.mark.parametrize("durable", [None, "stream"], ids=["queue", "durable-topic"])
def test_kill_9_in_mid_stream_loses_nothing_that_was_confirmed(
    breakable_broker: BrokerServer, unique_name: str, durable: str | None
) -> None:
    broker = breakable_broker
    destination = f"/topic/{unique_name}" if durable else f"/queue/{unique_name}"
    collector = Collector()
    # Two connections: who publishes must not be saved by who consumes.
    with (
        running(settings(broker.address, client_id="consumer")) as consumer,
        running(settings(broker.address, client_id="publisher")) as producer,
    ):
        consumer.subscribe(destination, collector, durable=durable).wait_active(30)
        broker.sync_declared()
        with Publisher(producer, destination) as publisher:
            for _ in range(3):
                enough = len(publisher.confirmed) + 100
                wait_until(partial(publisher.has_confirmed, enough), timeout=180)
                wait_until(lambda: consumer.state is BusState.CONNECTED, timeout=60)
                broker.kill9()
                time.sleep(0.3)
                broker.start()
            enough = len(publisher.confirmed) + 100
            wait_until(lambda: len(publisher.confirmed) >= enough, timeout=180)
        assert publisher.failed == []
        expected = set(publisher.confirmed)
        wait_until(lambda: expected <= set(map(int, collector.bodies)), timeout=180)
        assert consumer.counters.losses >= 3
        seen = [int(body) for body in collector.bodies]
        assert len(seen) == len(set(seen)), "a redelivered message was handled twice"


def test_kill_9_while_nobody_is_subscribed_keeps_a_durable_subscription(
    breakable_broker: BrokerServer, unique_name: str
) -> None:
    broker = breakable_broker
    collector = Collector()
    with running(settings(broker.address)) as bus:
        bus.subscribe(f"/topic/{unique_name}", collector, durable=unique_name).wait_active(30)
    broker.sync_declared()
    with running(settings(broker.address)) as bus:
        bus.publish_many((f"/topic/{unique_name}", text(str(number))) for number in range(100))
    broker.kill9()
    broker.start()
    with running(settings(broker.address)) as bus:
        bus.subscribe(f"/topic/{unique_name}", collector, durable=unique_name)
        collector.wait(100, timeout=60)
    assert collector.bodies == [str(number) for number in range(100)]


def test_service_is_back_within_a_second_of_the_port_opening(breakable_broker: BrokerServer, unique_name: str) -> None:
    broker = breakable_broker
    with running(settings(broker.address, heartbeat=10.0)) as bus:

        def back() -> float:
            failures = bus.counters.connect_failures
            broker.stop()
            wait_until(lambda: bus.counters.connect_failures >= failures + 5)
            broker.start()  # returns when a login was answered
            began = time.monotonic()
            bus.publish(f"/queue/{unique_name}", text("x"))
            return time.monotonic() - began

        in_time(1.0, back)


def test_a_frozen_broker_is_left_within_two_heart_beats(breakable_broker: BrokerServer, unique_name: str) -> None:
    broker = breakable_broker
    events = Events()
    with running(settings(broker.address), on_event=events) as bus:
        quiet(bus.counters, 1.5)

        def noticed() -> float:
            losses = len(events.of(ConnectionLost))
            broker.freeze()
            try:
                began = time.monotonic()
                events.wait(ConnectionLost, losses + 1)
                took = time.monotonic() - began
                with pytest.raises(PublishError):
                    bus.publish(f"/queue/{unique_name}", text("x"), timeout=0.5)
            finally:
                broker.thaw()
            bus.publish(f"/queue/{unique_name}", text("y"), timeout=30)
            return took

        in_time(2.3, noticed)


def test_connect_without_an_answer_ends_in_time_and_the_next_broker_is_tried(
    breakable_broker: BrokerServer, unique_name: str
) -> None:
    """A frozen broker's kernel still takes connections."""
    mute = breakable_broker
    mute.freeze()
    try:
        events = Events()
        with EmbeddedBroker() as other:
            address = f"failover:({mute.address},{other.address})?randomize=false"
            with running(settings(address, connect_timeout=1.0), on_event=events) as bus:
                assert "no answer to CONNECT" in events.wait(ConnectFailed)[0].problem
                bus.publish(f"/queue/{unique_name}", text("to the other one"))
                mute.thaw()
                other.kill()
                bus.publish(f"/queue/{unique_name}", text("to the first one again"), timeout=60)
                wait_until(lambda: any(event.dialect != "embedded" for event in events.of(Connected)))
    finally:
        mute.thaw()


def test_a_black_hole_is_left_within_two_heart_beats(real_broker: BrokerServer, unique_name: str) -> None:
    events = Events()
    with FaultProxy(real_broker.port) as proxy, line(real_broker, proxy, on_event=events) as bus:

        def noticed() -> float:
            losses = len(events.of(ConnectionLost))
            proxy.black_hole()
            began = time.monotonic()
            events.wait(ConnectionLost, losses + 1)
            took = time.monotonic() - began
            proxy.clear()
            bus.publish(f"/queue/{unique_name}", text("x"))
            return took

        in_time(2.3, noticed)


def test_a_connection_that_a_firewall_forgets_when_idle_lives_four_times_as_long(
    real_broker: BrokerServer, unique_name: str
) -> None:
    with FaultProxy(real_broker.port) as proxy:
        proxy.forget_idle(2.0)
        with line(real_broker, proxy) as bus:
            quiet(bus.counters, 8)
            bus.publish(f"/queue/{unique_name}", text("x"), timeout=30)


@pytest.mark.parametrize("fault", ["reset", "cut", "slices", "slow", "latency"])
def test_a_bad_line_costs_time_and_nothing_else(real_broker: BrokerServer, unique_name: str, fault: str) -> None:
    collector = Collector()
    destination = f"/queue/{unique_name}"
    with FaultProxy(real_broker.port) as proxy, line(real_broker, proxy, heartbeat=3.0) as bus:
        bus.subscribe(destination, collector)
        futures = [bus.publish_nowait(destination, text(f"{n} " + "x" * 2000), timeout=60) for n in range(100)]
        match fault:
            case "reset":
                for _ in range(5):
                    time.sleep(0.05)
                    proxy.reset()
            case "cut":
                for count in (1, 100, 3000, 50_000):
                    proxy.cut_after(count)
                    connects = bus.counters.connects  # before the reset: after it, the next one may be there already
                    proxy.reset()
                    wait_until(lambda connects=connects: bus.counters.connects > connects)  # type: ignore[misc]
                proxy.clear()
            case "slices":
                proxy.slices(7)
            case "slow":
                proxy.bandwidth(500_000)
            case "latency":
                proxy.latency(0.05, jitter=0.03)
        for future in futures:
            future.result(60)
        wait_until(lambda: len({body.split()[0] for body in collector.bodies}) == 100, timeout=120)
        proxy.clear()
    numbers = [int(body.split()[0]) for body in collector.bodies]
    assert len(numbers) == len(set(numbers)), "a copy was handled twice"


def publish_until_it_fails(bus: Bus, destination: str, *, timeout: float) -> None:
    """The first ones after an alarm may still be read."""
    for number in range(1000):
        bus.publish(destination, text(f"during {number}"), timeout=timeout)


@pytest.mark.rabbitmq
def test_rabbitmqs_memory_alarm_is_an_error_in_time_and_no_loss(new_rabbitmq: Callable[..., RabbitMQ]) -> None:
    broker = new_rabbitmq().start()
    collector = Collector()
    with running(settings(broker.address)) as consumer, running(settings(broker.address)) as bus:
        consumer.subscribe("/queue/q", collector).wait_active(30)
        bus.publish("/queue/q", text("before"))
        broker.set_memory_alarm(True)
        began = time.monotonic()
        with pytest.raises(PublishError, match="alarm"):
            publish_until_it_fails(bus, "/queue/q", timeout=1.0)
        assert time.monotonic() - began < 60
        quiet(bus.counters, 2.5)  # heart-beats go on under the alarm
        waiting = bus.publish_nowait("/queue/q", text("patient"), timeout=60)
        broker.set_memory_alarm(False)
        waiting.result(60)
        wait_until(lambda: "patient" in collector.bodies)


@pytest.mark.rabbitmq
def test_a_message_that_rabbitmq_closes_on_is_given_up_and_the_others_arrive(
    rabbitmq: RabbitMQ, unique_name: str
) -> None:
    """`expiration` that is no number: RabbitMQ ends the connection with an AMQP error."""
    with running(settings(rabbitmq.address)) as bus:
        frames = [text("a"), text("b", expiration="soon"), text("c")]
        futures = [bus.publish_nowait(f"/queue/{unique_name}", frame, timeout=30) for frame in frames]
        assert isinstance(futures[1].exception(30), PublishRefused)
        for index in (0, 2):
            futures[index].result(30)


@pytest.mark.rabbitmq
def test_a_message_with_large_headers_that_rabbitmq_took_is_delivered(rabbitmq: RabbitMQ, unique_name: str) -> None:
    collector = Collector()
    with running(settings(rabbitmq.address, heartbeat=UNHURRIED)) as bus:
        bus.publish(f"/queue/{unique_name}", text("x", large="1" * 1_000_000))
        bus.subscribe(f"/queue/{unique_name}", collector)
        (delivery,) = collector.wait(1)
        assert len(delivery.headers["large"]) == 1_000_000
        assert bus.counters.losses == 0


def test_headers_that_a_broker_would_choke_on_are_refused_at_once(real_broker: BrokerServer, unique_name: str) -> None:
    with running(settings(real_broker.address, client_id="", heartbeat=UNHURRIED)) as bus:
        for header in ({"priority": "high"}, {"timestamp": "now"}, {"expires": "-1"}, {"user-id": "me"}):
            with pytest.raises(PublishRefused, match=next(iter(header))):
                bus.publish(f"/queue/{unique_name}", text("x", **header))
        bus.publish(f"/queue/{unique_name}", text("x", priority="4"), ttl=1e9)
        assert bus.counters.losses == 0


def test_a_peer_that_never_reads_is_an_error_in_time(real_broker: BrokerServer, unique_name: str) -> None:
    with FaultProxy(real_broker.port) as proxy, line(real_broker, proxy, heartbeat=0.0) as bus:
        proxy.black_hole(direction="up")
        began = time.monotonic()
        futures = [bus.publish_nowait(f"/queue/{unique_name}", text("x" * 500_000), timeout=1) for _ in range(30)]
        assert all(isinstance(future.exception(60), PublishError) for future in futures)
        assert time.monotonic() - began < 60
        proxy.clear()
        proxy.reset()  # else the bus would wait its ten seconds for an answer to its goodbye


def test_a_slow_handler_costs_neither_the_connection_nor_a_copy(real_broker: BrokerServer, unique_name: str) -> None:
    collector = Collector(lambda _: time.sleep(2.5))
    with running(settings(real_broker.address, client_id="")) as bus:
        bus.subscribe(f"/queue/{unique_name}", collector)
        handled = itertools.count(1)

        def lost() -> float:  # once without a loss is enough, as with `quiet`
            before, number = bus.counters.losses, next(handled)
            bus.publish(f"/queue/{unique_name}", text(str(number)), timeout=60)
            wait_until(lambda: bus.counters.acked >= number)
            return bus.counters.losses - before

        in_time(1, lost)
        assert collector.bodies == [str(number + 1) for number in range(len(collector))]


def test_two_brokers_and_the_first_one_dies(
    new_rabbitmq: Callable[..., RabbitMQ], activemq: BrokerServer, unique_name: str
) -> None:
    """Failover across kinds: what waits is written anew for the other dialect."""
    rabbit = new_rabbitmq().start()
    events, collector = Events(), Collector()
    address = f"failover:({rabbit.address},{activemq.address})?randomize=false"
    # The end of the first is told by its sockets; with short times it could be left, or passed over, while it lives.
    patient = settings(address, heartbeat=UNHURRIED, connect_timeout=30.0)
    with running(patient, on_event=events) as bus:
        bus.subscribe(f"/queue/{unique_name}", collector)
        bus.publish(f"/queue/{unique_name}", text("one"), timeout=60)
        collector.wait(1)  # it may be confirmed before it is delivered, and would go down with its broker
        rabbit.kill9()
        bus.publish(f"/queue/{unique_name}", text("two"), timeout=60)
        collector.wait(2)
        assert [event.dialect for event in events.wait(Connected, 2)] == ["rabbitmq", "activemq"]


@pytest.mark.rabbitmq
def test_a_queue_that_is_deleted_under_a_subscription_is_subscribed_again(
    new_rabbitmq: Callable[..., RabbitMQ],
) -> None:
    collector, events = Collector(), Events()
    queue_deleted = new_rabbitmq().start()
    with running(settings(queue_deleted.address, heartbeat=UNHURRIED), on_event=events) as bus:
        bus.subscribe("/queue/q", collector).wait_active(30)
        queue_deleted.evaluate(
            'rabbit_amqqueue:delete(element(2, rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"q">>))), '
            'false, false, <<"test">>)'
        )
        assert "ended the subscription" in events.wait(ConnectionLost)[0].reason
        bus.publish("/queue/q", text("after"), timeout=60)
        collector.wait(1, timeout=60)
