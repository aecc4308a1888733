"""What a handler, a callback for events or a callback of a future calls on its own bus works, or is refused at once.

While more messages wait than may be in memory, on brokers that bound deliveries and on those that do not.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Final

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus, Delivery, Reject, Subscription, Verdict
from deploykit.bus.events import DeadLettered, Event, Subscribed
from deploykit.errors import BusClosed, DeploykitError, PublishRefused, UsageError, WindowFull
from deploykit.settings import BusSettings
from deploykit.wire.frame import Frame
from tests.brokers.server import BrokerServer
from tests.support.bus import Collector, Events, bus_threads, eventually, fast, text

UNKNOWN: Final = "apache-activemq-artemis/2.31.0"
#: It is asked for `activemq.prefetchSize`, of which the embedded broker knows nothing.
BREAKS_PREFETCH: Final = "ActiveMQ/5.17.2"
#: More than a subscription may hold in memory.
FLOOD: Final = 2000
_WAIT: Final = 20.0


@attrs.frozen(kw_only=True)
class Place:
    """A broker, and names that nothing else uses there."""

    settings: BusSettings
    name: str
    durable: bool

    @property
    def flooded(self) -> str:
        return f"/queue/flooded-{self.name}"

    @property
    def out(self) -> str:
        return f"/topic/out-{self.name}"

    @property
    def other(self) -> str:
        return f"/queue/other-{self.name}"

    @contextmanager
    def bus(self, on_event: Callable[[Event], object] | None = None, **changes: object) -> Iterator[Bus]:
        with Bus(attrs.evolve(self.settings, **changes), on_event=on_event) as bus:  # type: ignore[arg-type]
            assert bus.wait_connected(_WAIT)
            yield bus

    def flood(self, size: int = 0, *, persistent: bool = False) -> None:
        """Send numbers, padded to so many bytes."""
        with self.bus() as bus:
            many = [
                (self.flooded, text(str(n).ljust(size), **{"deploykit-id": f"{self.name} {n}"})) for n in range(FLOOD)
            ]
            bus.publish_many(many, persistent=persistent, timeout=60)


@pytest.fixture(
    params=[
        "unknown",
        "breaks-prefetch",
        "embedded",
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
        pytest.param("activemq", marks=pytest.mark.activemq),
    ]
)
def place(request: pytest.FixtureRequest, unique_name: str) -> Iterator[Place]:
    kind = str(request.param)
    changes = {"dead_letter": f"/queue/dead-{unique_name}", "publish_timeout": _WAIT}
    if kind in ("rabbitmq", "activemq"):
        broker: BrokerServer = request.getfixturevalue(kind)
        settings = fast(broker.address, client_id=f"client-{unique_name}", **changes)
        yield Place(settings=settings, name=unique_name, durable=True)
        return
    named = {"unknown": UNKNOWN, "breaks-prefetch": BREAKS_PREFETCH, "embedded": "deploykit"}
    with EmbeddedBroker(server=named[kind]) as embedded:
        settings = fast(embedded.address, client_id=f"client-{unique_name}", **changes)
        yield Place(settings=settings, name=unique_name, durable=kind == "embedded")


@attrs.define(kw_only=True)
class Scene:
    """What a call finds."""

    place: Place
    bus: Bus
    own: Subscription | None = None
    other: Subscription | None = None
    durable: Subscription | None = None


def publish(scene: Scene) -> None:
    scene.bus.publish(scene.place.out, text("x"), timeout=_WAIT)


def publish_to_where_it_comes_from(scene: Scene) -> None:
    scene.bus.publish(scene.place.flooded, text("again"), timeout=_WAIT)


def publish_nowait(scene: Scene) -> None:
    """With a window that is smaller than what is sent, so that it has no room for all."""
    futures = []
    for n in range(100):
        with suppress(WindowFull):
            futures.append(scene.bus.publish_nowait(scene.place.out, text(str(n)), timeout=_WAIT))
    assert futures
    for future in futures:
        future.result(_WAIT)


def publish_many(scene: Scene) -> None:
    assert scene.bus.publish_many([(scene.place.out, text("x"))] * 100, timeout=_WAIT) == 100


def ask_and_wait_for_the_answer(scene: Scene) -> None:
    """The answer comes through another subscription of the same bus."""
    answers = Collector()
    asking = scene.bus.subscribe(f"{scene.place.out}-answers", answers)
    assert asking.wait_active(_WAIT)
    scene.bus.publish(f"{scene.place.out}-answers", text("answer"), timeout=_WAIT)
    answers.wait(1, _WAIT)
    asking.unsubscribe()


def wait_active(scene: Scene) -> None:
    assert scene.bus.subscribe(f"{scene.place.out}-new", Collector()).wait_active(_WAIT)


def wait_connected(scene: Scene) -> None:
    assert scene.bus.wait_connected(_WAIT)


def end_another_subscription(scene: Scene) -> None:
    assert scene.other is not None
    scene.other.unsubscribe(timeout=_WAIT)
    eventually(lambda: scene.other not in scene.bus._subscriptions)


def forget_a_durable_subscription(scene: Scene) -> None:
    if scene.durable is not None:
        scene.durable.unsubscribe(forget=True, timeout=_WAIT)
        eventually(lambda: scene.durable not in scene.bus._subscriptions)


def look(scene: Scene) -> None:
    """Everything that only looks."""
    scene.bus.later(0.0, lambda: None)
    eventually(lambda: scene.bus.connection is not None and scene.bus.problem is None)
    assert scene.bus.state.value == "connected"
    assert repr(scene.bus)
    assert scene.other is not None
    assert scene.other.queued == 0


CALLS: Final = (
    publish,
    publish_to_where_it_comes_from,
    publish_nowait,
    publish_many,
    ask_and_wait_for_the_answer,
    wait_active,
    wait_connected,
    end_another_subscription,
    forget_a_durable_subscription,
    look,
)


@contextmanager
def scene_at(place: Place, on_event: Callable[[Event], object] | None = None) -> Iterator[Scene]:
    with place.bus(on_event, window=10) as bus:
        scene = Scene(place=place, bus=bus)
        scene.other = bus.subscribe(place.other, Collector())
        if place.durable:
            scene.durable = bus.subscribe(f"/topic/{place.name}", Collector(), durable=f"d-{place.name}")
        assert bus.wait_connected(_WAIT)
        yield scene


def full(bus: Bus, place: Place) -> bool:
    """Whether as much is in memory as may be: by prefetch, or because nothing more is read."""
    subscription = next(one for one in list(bus._subscriptions) if one.destination == place.flooded)
    feeds = bus._supervisor.roster.feeds
    paused = any(feed.connection is not None and feed.connection.paused for feed in feeds)  # type: ignore[attr-defined]
    return paused if feeds else subscription.queued >= subscription.intent.prefetch // 2


@pytest.mark.parametrize("call", CALLS)
def test_a_handler_may_call_it_while_more_waits_than_may_be_here(place: Place, call: Callable[[Scene], None]) -> None:
    place.flood()
    done: Future[None] = Future()
    began = threading.Event()
    collector = Collector()

    with scene_at(place) as scene:

        def handle(delivery: Delivery) -> None:
            collector(delivery)
            if began.is_set():
                return
            began.set()
            try:
                eventually(lambda: full(scene.bus, place) or scene.bus.counters.losses, timeout=_WAIT)
                call(scene)
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        scene.own = scene.bus.subscribe(place.flooded, handle, prefetch=50)
        done.result(120)
        eventually(lambda: len({body for body in collector.bodies if body != "again"}) == FLOOD, timeout=60)
        if scene.bus.counters.losses == 0:
            assert [body for body in collector.bodies if body != "again"] == [str(n) for n in range(FLOOD)]


@pytest.mark.parametrize("call", CALLS)
def test_a_callback_for_events_may_call_it(place: Place, call: Callable[[Scene], None]) -> None:
    done: Future[None] = Future()
    scenes: list[Scene] = []
    hold = threading.Event()
    place.flood()

    def on_event(event: Event) -> None:
        if isinstance(event, Subscribed) and event.destination == place.flooded and not done.done():
            try:
                eventually(lambda: full(scenes[0].bus, place) or scenes[0].bus.counters.losses, timeout=_WAIT)
                call(scenes[0])
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

    with scene_at(place, on_event) as scene:
        scenes.append(scene)
        scene.own = scene.bus.subscribe(place.flooded, lambda _: _after(hold), prefetch=50)
        try:
            done.result(120)
        finally:
            hold.set()


#: What would wait, on the thread that everything waits for.
REFUSED: Final = frozenset({publish, publish_to_where_it_comes_from, publish_many, wait_active, wait_connected})


@pytest.mark.parametrize(
    "call",
    [
        *sorted(REFUSED, key=lambda call: call.__name__),
        look,
        pytest.param(lambda scene: scene.other.unsubscribe(), id="unsubscribe"),
        pytest.param(lambda scene: scene.bus.subscribe(scene.place.out, Collector()), id="subscribe"),
        pytest.param(lambda scene: scene.bus.publish_nowait(scene.place.out, text("x")), id="publish_nowait"),
        pytest.param(lambda scene: scene.bus.stop(), id="stop"),
    ],
)
@pytest.mark.parametrize("outcome", ["confirmed", "refused", "too-late"])
def test_a_callback_of_a_future_that_would_wait_for_itself_is_refused_at_once(
    outcome: str, call: Callable[[Scene], None], unique_name: str
) -> None:
    """It runs on the bus's own thread, or under the lock under which is written: it waited until its time was over."""
    with EmbeddedBroker() as broker:
        place = Place(settings=fast(broker.address), name=unique_name, durable=False)
        with scene_at(place) as scene:
            raised: Future[BaseException | None] = Future()
            here = threading.current_thread()

            def called_back(_: Future[None]) -> None:
                if threading.current_thread() is here and outcome != "refused":
                    return  # the outcome was there before this was asked for
                try:
                    call(scene)
                except DeploykitError as error:
                    raised.set_result(error)
                except BaseException as error:
                    raised.set_exception(error)
                else:
                    raised.set_result(None)

            if outcome == "too-late":
                broker.faults.withhold_receipts()
            frame = text("x", **({"priority": "no number"} if outcome == "refused" else {}))
            if outcome == "refused":
                with scene.bus._supervisor.connection._writing:  # type: ignore[union-attr]  # so nothing is written yet
                    scene.bus.publish_nowait(place.out, frame).add_done_callback(called_back)
                with suppress(PublishRefused):
                    scene.bus.publish(place.out, frame)  # writes what waits, maybe on this thread
            while outcome != "refused" and not raised.done():
                first = scene.bus.publish_nowait(place.out, frame, timeout=0.1 if outcome == "too-late" else _WAIT)
                first.add_done_callback(called_back)
                wait([first], _WAIT)
                wait([raised], 1.0)
            said = raised.result(_WAIT / 4)
            broker.faults.clear()
            assert isinstance(said, UsageError) == (call in REFUSED)
            if said is not None:
                assert "publish_nowait()" in str(said)
                scene.bus.publish(place.out, text("alive"), timeout=_WAIT)


def test_what_the_buss_own_thread_does_later_must_not_wait_for_it() -> None:
    with EmbeddedBroker() as broker, Bus(fast(broker.address)) as bus:
        assert bus.wait_connected(_WAIT)
        said: Future[str] = Future()

        def later() -> None:
            try:
                bus.publish("/queue/q", text("x"), timeout=_WAIT)
            except UsageError as error:
                said.set_result(str(error))

        bus.later(0.0, later)
        assert "publish()" in said.result(_WAIT)


def test_there_is_no_room_for_a_callback_that_publishes_into_a_full_window() -> None:
    with EmbeddedBroker() as broker, Bus(fast(broker.address, window=4)) as bus:
        assert bus.wait_connected(_WAIT)
        problems: list[object] = []

        def more(_: Future[None]) -> None:
            try:
                for _n in range(10):
                    bus.publish_nowait("/queue/q", text("more"), timeout=_WAIT)
            except DeploykitError as error:
                problems.append(str(error))

        bus.publish_nowait("/queue/q", text("x")).add_done_callback(more)
        eventually(lambda: problems, timeout=_WAIT / 2)
        assert "no room" in str(problems[0])
        bus.publish("/queue/q", text("alive"), timeout=_WAIT)


@pytest.mark.parametrize(("workers", "prefetch"), [(1, 1), (8, 128)])
def test_every_worker_publishes_each_message_it_gets(place: Place, workers: int, prefetch: int) -> None:
    """To a broker that bounds nothing 6,000 were sent: none was handled in half a minute."""
    place.flood()
    with place.bus(window=16, in_flight=4) as bus:
        handled: set[bytes] = set()

        def handle(delivery: Delivery) -> None:
            bus.publish(place.out, text(delivery.body.decode()), persistent=False, timeout=_WAIT)
            if len(handled) % 50 == 0:  # not more: ActiveMQ's receipt and next message then are 40 ms apart (Nagle)
                bus.publish_many([(place.out, text("soon"))] * 20, persistent=False)
            handled.add(delivery.body)

        bus.subscribe(place.flooded, handle, workers=workers, prefetch=prefetch)
        eventually(lambda: len(handled) == FLOOD, f"{FLOOD} handled", timeout=120)
        assert bus.counters.publish_failed == 0


def test_dead_letters_are_copied_while_more_waits_than_may_be_here(place: Place) -> None:
    place.flood()
    events = Events()
    with place.bus(events) as bus:
        bus.subscribe(place.flooded, lambda _: Reject("no"), workers=2)
        eventually(lambda: bus.counters.dead_lettered >= FLOOD, timeout=60)
        assert bus.counters.publish_failed == 0
        events.wait(DeadLettered, FLOOD)


def test_a_queue_is_fed_by_its_own_handler(place: Place) -> None:
    """Each message asks for two more, until there are enough."""
    with place.bus(window=50) as bus:
        handled: set[str] = set()

        def handle(delivery: Delivery) -> None:
            number = int(delivery.body)
            for child in (2 * number, 2 * number + 1):
                if child <= FLOOD:
                    bus.publish(place.flooded, text(str(child)), persistent=False, timeout=_WAIT)
            handled.add(delivery.body.decode())

        bus.subscribe(place.flooded, handle, workers=4, prefetch=10)
        bus.publish(place.flooded, text("1"))
        eventually(lambda: len(handled) == FLOOD, timeout=60)


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
def test_the_books_are_right_where_connections_are_lost_and_nothing_bounds_deliveries(
    version: str, tmp_path: Path
) -> None:
    """What was sent is handled, and what is handled is passed on, however often which connection is lost."""
    with EmbeddedBroker(server=UNKNOWN, data=tmp_path) as broker:
        settings = fast(broker.address, versions=(version,), publish_timeout=60.0)
        place = Place(settings=settings, name="books", durable=False)
        place.flood(persistent=True)
        passed_on = Collector()
        with place.bus() as bus:

            def handle(delivery: Delivery) -> None:
                bus.publish(place.other, Frame({"deploykit-id": f"on {delivery.id}"}, delivery.body), timeout=60)

            bus.subscribe(place.flooded, handle, workers=4)
            bus.subscribe(place.other, passed_on)
            for n, lose in enumerate((broker.faults.drop, broker.faults.half_open, broker.restart) * 3):
                passed_on.wait(100 * (n + 1), 60)
                lose()
            eventually(lambda: {*passed_on.bodies} == {str(n) for n in range(FLOOD)}, timeout=120)
            eventually(lambda: sum(broker.stats().queues.values()) == 0, timeout=60)
            assert bus.counters.publish_failed == 0
            assert len(passed_on) == FLOOD
        assert bus_threads() == []


def test_two_handlers_that_end_each_others_subscription_both_end(place: Place) -> None:
    with place.bus() as bus:
        both = threading.Barrier(2, timeout=_WAIT)
        subscriptions: list[Subscription] = []

        def handle(delivery: Delivery) -> None:
            both.wait()
            other = subscriptions[0] if delivery.body == b"1" else subscriptions[1]
            other.unsubscribe(timeout=600)

        subscriptions += [bus.subscribe(place.flooded, handle), bus.subscribe(place.other, handle)]
        bus.publish_many([(place.flooded, text("0")), (place.other, text("1"))])
        eventually(lambda: not bus._subscriptions)
        assert bus.counters.acked == 2


@pytest.mark.parametrize("where", ["handler", "event", "outside"])
def test_a_bus_may_be_stopped_while_more_waits_than_may_be_here(place: Place, where: str) -> None:
    """And what it did not handle is given to the next one; what it did handle, is not."""
    place.flood(size=8000)  # more than lies between the broker and us
    handled, rest = Collector(), Collector()
    stopped = threading.Event()
    buses: list[Bus] = []
    began: list[float] = []

    def stop() -> None:
        eventually(lambda: full(buses[0], place) or buses[0].counters.losses, timeout=_WAIT)
        began.append(monotonic())
        buses[0].stop(timeout=_WAIT)
        stopped.set()

    def on_event(event: Event) -> None:
        if where == "event" and isinstance(event, Subscribed) and event.destination == place.flooded:
            stop()

    def handle(delivery: Delivery) -> Verdict | None:
        handled(delivery)
        if where == "handler" and not stopped.is_set():
            stop()
        elif where != "handler":
            stopped.wait(0.01)
        return None

    with place.bus(on_event) as bus:
        buses.append(bus)
        bus.subscribe(place.flooded, handle)
        if where == "outside":
            stop()
        eventually(lambda: stopped.is_set() and not bus._supervisor.thread.is_alive())
        assert monotonic() - began[0] < _WAIT / 2  # the last answers were read, behind all that nobody wanted any more
        with pytest.raises(BusClosed):
            bus.publish(place.out, text("x"))
    with place.bus() as bus:
        bus.subscribe(place.flooded, rest)
        lost_once = {str(n) for n in range(FLOOD)} - {body.strip() for body in handled.bodies}
        eventually(lambda: lost_once <= {body.strip() for body in rest.bodies}, timeout=60)


def _after(event: threading.Event) -> None:
    event.wait(60)


def test_what_is_published_after_a_subscription_does_not_overtake_it(place: Place) -> None:
    """On a topic, what comes before the subscription is lost."""
    with place.bus() as bus:
        for n in range(5):
            heard = Collector()
            bus.subscribe(f"{place.out}-{n}", heard)
            bus.publish(f"{place.out}-{n}", text("after"), timeout=_WAIT)
            heard.wait(1)


@pytest.mark.parametrize("server", [UNKNOWN, "deploykit"])
def test_what_waits_for_a_new_connection_goes_out_after_its_subscriptions(server: str) -> None:
    with EmbeddedBroker(server=server) as broker, Bus(fast(broker.address)) as bus:
        heard = Collector()
        assert bus.subscribe("/topic/t", heard).wait_active(_WAIT)
        for n in range(5):
            broker.faults.drop()
            bus.publish("/topic/t", text(str(n)), timeout=_WAIT)
            eventually(lambda n=n: str(n) in heard.bodies)  # type: ignore[misc]


def test_a_moment_without_descriptors_ends_neither_the_bus_nor_a_subscription(monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedBroker(server=UNKNOWN) as broker, Bus(fast(broker.address)) as bus:
        heard = Collector()
        assert bus.subscribe("/topic/t", heard).wait_active(_WAIT)
        tried = threading.Event()

        def none_left(*_: object) -> None:
            tried.set()
            raise OSError(errno.EMFILE, "Too many open files")

        with monkeypatch.context() as patch:
            patch.setattr("deploykit.system.hosts.select.epoll", none_left)
            broker.faults.drop()
            assert tried.wait(_WAIT)
        assert bus.wait_connected(_WAIT)
        bus.publish("/topic/t", text("x"), timeout=_WAIT)
        heard.wait(1)
