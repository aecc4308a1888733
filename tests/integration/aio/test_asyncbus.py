"""`AsyncBus` on the embedded broker: it keeps what `Bus` promises, and the event loop never waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest

from deploykit import (
    BusClosed,
    BusSettings,
    BusState,
    Connected,
    Event,
    Frame,
    LoginRefused,
    Notice,
    PublishError,
    PublishRefused,
    RefUpdated,
    TopicMap,
    UsageError,
    WindowFull,
    encode,
    parse_object_id,
    parse_ref_name,
    parse_repo_name,
)
from deploykit.aio import AsyncBus
from deploykit.broker.server import EmbeddedBroker
from tests.support.bus import fast

#: Seconds. A loop that waited for room or a broker would stand still for 30 (`publish_timeout`); a busy machine, less.
_BLOCKED = 20.0


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(users={"ada": "s3cret"}, record=100_000) as broker:
        yield broker


def run(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 120))


@contextlib.asynccontextmanager
async def never_blocked(limit: float = _BLOCKED) -> AsyncIterator[None]:
    """Fail if the event loop stood still for longer than `limit` seconds."""
    longest, last = 0.0, monotonic()

    async def beat() -> None:
        nonlocal longest, last
        while True:
            await asyncio.sleep(0.01)
            longest, last = max(longest, monotonic() - last), monotonic()

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        await asyncio.sleep(0.02)
        task.cancel()
    assert longest < limit, f"the event loop stood still for {longest:.1f} s"


def numbered(number: int) -> Frame:
    return Frame({"number": str(number)}, b"%d" % number)


def test_what_is_published_is_confirmed_and_iterated_in_order(broker: EmbeddedBroker) -> None:
    async def main() -> None:
        async with AsyncBus(fast(broker.address)) as bus:
            for number in range(20):
                await bus.publish("/queue/work", numbered(number))
            bodies = []
            async with bus.subscribe("/queue/work", prefetch=4) as deliveries:
                async for delivery in deliveries:
                    bodies.append(delivery.body)
                    if len(bodies) == 20:
                        break
            assert bodies == [b"%d" % number for number in range(20)]
        assert bus.state is BusState.CLOSED

    run(main)
    assert broker.peek("/queue/work") == ()


def test_messages_are_sent_to_their_topics_and_listened_to_in_their_class(broker: EmbeddedBroker) -> None:
    push = RefUpdated(
        repo=parse_repo_name("shop"),
        ref=parse_ref_name("refs/heads/main"),
        old=parse_object_id("1" * 40),
        new=parse_object_id("2" * 40),
    )
    topics = TopicMap(source="/topic/pushes")

    async def main() -> None:
        async with AsyncBus(fast(broker.address)) as bus, bus.listen(RefUpdated, topics=topics) as pushes:
            await bus.wait_connected(10)
            await bus.publish("/topic/pushes", Frame({"content-type": "application/json"}, b"no message"))
            await bus.publish("/topic/pushes", encode(Notice(text="of another class")))
            await bus.send(push, topics=topics)
            message = await anext(pushes)
            assert (message.repo, message.id) == ("shop", push.id)
            assert pushes.delivery is not None
            assert pushes.delivery.destination == "/topic/pushes"

    run(main)
    (dead,) = broker.peek("/queue/deploykit.dead-letter")
    assert dead.body == b"no message"


def test_a_delivery_that_an_exception_ends_goes_back(broker: EmbeddedBroker) -> None:
    async def handle(bus: AsyncBus) -> None:
        async with bus.subscribe("/queue/work", prefetch=1) as deliveries:
            async for delivery in deliveries:
                if delivery.body == b"2":
                    raise RuntimeError("of the body")

    async def main() -> None:
        async with AsyncBus(fast(broker.address)) as bus:
            await bus.publish("/queue/work", numbered(1))
            await bus.publish("/queue/work", numbered(2))
            with pytest.raises(RuntimeError, match="of the body"):
                await handle(bus)
            async with bus.subscribe("/queue/work") as again:
                assert (await anext(again)).body == b"2"

    run(main)
    assert broker.peek("/queue/work") == ()


def test_what_is_in_hand_when_the_bus_stops_goes_back(broker: EmbeddedBroker) -> None:
    async def main() -> None:
        async with AsyncBus(fast(broker.address)) as bus:
            await bus.publish("/queue/work", numbered(1))
            deliveries = bus.subscribe("/queue/work")
            assert (await anext(deliveries)).body == b"1"
        with pytest.raises(StopAsyncIteration):
            await anext(deliveries)

    run(main)
    assert [frame.body for frame in broker.peek("/queue/work")] == [b"1"]


def test_retry_and_reject_say_otherwise(broker: EmbeddedBroker) -> None:
    async def main() -> None:
        async with AsyncBus(fast(broker.address)) as bus:
            await bus.publish("/queue/work", numbered(1))
            async with bus.subscribe("/queue/work") as deliveries:
                assert (await anext(deliveries)).attempt == 1
                deliveries.retry(after=0.05)
                assert (await anext(deliveries)).attempt == 2
                deliveries.reject("no good")

    run(main)
    (dead,) = broker.peek("/queue/deploykit.dead-letter")
    assert dead.body == b"1"


def test_close_ends_the_iteration_after_the_delivery_in_hand(broker: EmbeddedBroker) -> None:
    seen: list[bytes] = []

    async def main() -> None:
        async with AsyncBus(fast(broker.address)) as bus:
            for number in range(3):
                await bus.publish("/queue/work", numbered(number))
            async with bus.subscribe("/queue/work", prefetch=1) as deliveries:
                async for delivery in deliveries:
                    seen.append(delivery.body)
                    deliveries.close()

    run(main)
    assert seen == [b"0"]
    assert [frame.body for frame in broker.peek("/queue/work")] == [b"1", b"2"]


def test_the_loop_goes_on_while_the_window_is_full_and_no_broker_is_there() -> None:
    settings = BusSettings(address="stomp://127.0.0.1:9", window=8, publish_timeout=30.0, backoff_max=0.2)

    async def main() -> None:
        async with AsyncBus(settings) as bus, never_blocked():
            for number in range(8):
                bus.publish_nowait("/topic/a", numbered(number)).add_done_callback(lambda f: f.exception())
            with pytest.raises(WindowFull):
                bus.publish_nowait("/topic/a", numbered(8))
            with pytest.raises(PublishError, match="no room"):
                await bus.publish("/topic/a", numbered(9), timeout=0.5)

    run(main)


def test_thousands_of_tasks_publish_through_a_small_window_in_order(broker: EmbeddedBroker) -> None:
    settings = fast(broker.address, window=16)

    async def main() -> None:
        async with AsyncBus(settings) as bus, never_blocked():
            await bus.wait_connected(10)
            await asyncio.gather(*(bus.publish("/topic/a", numbered(n), timeout=60) for n in range(3000)))

    run(main)
    assert [frame.headers["number"] for frame in broker.sent("/topic/a")] == [str(n) for n in range(3000)]


def test_the_loop_goes_on_while_the_broker_is_restarted_under_load(broker: EmbeddedBroker) -> None:
    received: set[bytes] = set()

    async def consume(bus: AsyncBus) -> None:
        async with bus.subscribe("/queue/load", prefetch=16) as deliveries:
            async for delivery in deliveries:
                received.add(delivery.body)
                if len(received) == 600:
                    break

    async def main() -> None:
        async with AsyncBus(fast(broker.address, window=32)) as bus, never_blocked():
            await bus.wait_connected(10)
            consumer = asyncio.create_task(consume(bus))
            publishers = [asyncio.create_task(bus.publish("/queue/load", numbered(n), timeout=60)) for n in range(600)]
            await asyncio.sleep(0.05)
            await asyncio.to_thread(broker.faults.drop)
            await asyncio.gather(*publishers)
            await consumer

    run(main)
    assert received == {b"%d" % n for n in range(600)}


def test_a_publisher_that_is_cancelled_holds_up_no_other(broker: EmbeddedBroker) -> None:
    async def main() -> None:
        async with AsyncBus(BusSettings(address="stomp://127.0.0.1:9", window=1)) as bus:
            first = asyncio.create_task(bus.publish("/topic/a", numbered(0), timeout=1.0))
            await asyncio.sleep(0.05)
            waiting = [asyncio.create_task(bus.publish("/topic/a", numbered(n), timeout=30)) for n in (1, 2)]
            await asyncio.sleep(0.05)
            waiting[0].cancel()
            with pytest.raises(PublishError):
                await first
            with pytest.raises(asyncio.CancelledError):
                await waiting[0]
            waiting[1].cancel()

    run(main)


def test_what_a_broker_refuses_is_raised_where_it_was_published(broker: EmbeddedBroker) -> None:
    async def main() -> None:
        async with AsyncBus(fast(broker.address)) as bus:
            with pytest.raises(PublishRefused):
                await bus.publish("/topic/a", Frame({"receipt": "mine"}, b""))
            with pytest.raises(UsageError):
                async with bus.subscribe("/topic/a", prefetch=0):
                    pass

    run(main)


def test_a_login_that_every_broker_refuses_is_raised_at_once(broker: EmbeddedBroker) -> None:
    async def main() -> None:
        async with AsyncBus(fast(broker.address.replace("s3cret", "wrong"))) as bus:
            with pytest.raises(LoginRefused):
                await bus.publish("/topic/a", numbered(0), timeout=3600)

    run(main)


def test_events_come_in_the_event_loop(broker: EmbeddedBroker) -> None:
    seen: list[tuple[Event, int]] = []

    async def main() -> None:
        async with AsyncBus(fast(broker.address), on_event=lambda e: seen.append((e, threading.get_ident()))) as bus:
            await bus.wait_connected(10)
            while not any(isinstance(event, Connected) for event, _ in seen):
                await asyncio.sleep(0.01)
        assert {thread for _, thread in seen} == {threading.get_ident()}

    run(main)


def test_it_says_how_it_is_to_be_started(broker: EmbeddedBroker) -> None:
    bus = AsyncBus(fast(broker.address))

    async def publish() -> None:
        await bus.publish("/topic/a", numbered(0))

    async def start() -> None:
        async with bus:
            pass

    with pytest.raises(BusClosed, match="not started"):
        run(publish)
    run(start)
    with pytest.raises(UsageError, match="another event loop"):
        run(publish)


def test_what_comes_after_close_is_left_for_the_broker_and_counts_no_attempt(broker: EmbeddedBroker) -> None:
    async def main() -> None:
        async with AsyncBus(fast(broker.address)) as bus:
            await bus.publish("/queue/work", numbered(0))
            async with bus.subscribe("/queue/work", workers=2, max_attempts=1, prefetch=8) as deliveries:
                assert (await anext(deliveries)).body == b"0"
                deliveries.close()
                for number in (1, 2, 3):
                    await bus.publish("/queue/work", numbered(number))
                await asyncio.sleep(1.5)  # longer than a given-back delivery would pause
                with pytest.raises(StopAsyncIteration):
                    await anext(deliveries)

    run(main)
    assert broker.peek("/queue/deploykit.dead-letter") == ()
    assert [frame.body for frame in broker.peek("/queue/work")] == [b"1", b"2", b"3"]


def test_waits_that_were_given_up_hold_up_nothing() -> None:
    async def main() -> None:
        started = monotonic()
        async with AsyncBus(BusSettings(address="stomp://127.0.0.1:9", backoff_max=0.2)) as bus:
            for _ in range(40):  # more than an executor has threads
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(bus.wait_connected(3600), 0.01)
        assert monotonic() - started < 60

    run(main)


def test_a_full_executor_of_the_program_holds_up_nothing(broker: EmbeddedBroker) -> None:
    async def main() -> None:
        release = threading.Event()
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        busy = asyncio.get_running_loop().run_in_executor(None, release.wait, 100)
        async with AsyncBus(fast(broker.address)) as bus:
            await bus.publish("/queue/work", numbered(0))
            async with bus.subscribe("/queue/work") as deliveries:
                assert (await anext(deliveries)).body == b"0"
        release.set()
        await busy

    run(main)


def test_two_tasks_share_one_subscription_and_a_cancelled_start_leaves_none(broker: EmbeddedBroker) -> None:
    seen: list[bytes] = []

    async def main() -> None:
        async with AsyncBus(fast(broker.address)) as bus:
            for number in range(20):
                await bus.publish("/queue/work", numbered(number))
            deliveries = bus.subscribe("/queue/work")

            async def take() -> None:
                async for delivery in deliveries:
                    seen.append(delivery.body)  # noqa: PERF401 -- one at a time

            tasks = [asyncio.create_task(take()) for _ in range(2)]
            while len(seen) < 20:
                await asyncio.sleep(0.01)
            assert len(bus._bus._services.subscriptions) == 1
            await deliveries.stop()
            await asyncio.gather(*tasks)
            assert bus._bus._services.subscriptions == []

            cancelled = bus.subscribe("/queue/work")
            starting = asyncio.create_task(cancelled.start())
            await asyncio.sleep(0)
            starting.cancel()
            await cancelled.stop()
            assert bus._bus._services.subscriptions == []

    run(main)
    assert sorted(seen) == sorted(b"%d" % n for n in range(20))


def test_a_publisher_that_left_causes_no_error_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with AsyncBus(BusSettings(address="stomp://127.0.0.1:9")) as bus:
            publishing = asyncio.create_task(bus.publish("/topic/a", numbered(0), timeout=30))
            await asyncio.sleep(0.1)
            publishing.cancel()

    with caplog.at_level(logging.WARNING, "asyncio"):
        run(main)
        gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
