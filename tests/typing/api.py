"""How programs use deploykit, for type checkers: mypy and basedpyright read this file, nothing runs it.

Every public name that takes or returns a value of a type is used here as its documentation shows; `assert_type` holds
what a caller gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import assert_type

import deploykit
from deploykit import (
    Ack,
    AllowedSigners,
    BuildFinished,
    Bus,
    BusSettings,
    BusState,
    Claim,
    ConnectionLost,
    Delivery,
    DeployRequested,
    DeployResult,
    Event,
    FetchResult,
    Frame,
    IdStore,
    Message,
    Mirror,
    MirrorSettings,
    Outbox,
    RefUpdated,
    Reject,
    Retry,
    Runner,
    Settings,
    Signers,
    SigningKey,
    Site,
    SiteSettings,
    Subscription,
    TopicMap,
    Verdict,
    WindowFull,
    load_settings,
)
from deploykit.aio import AsyncBus, AsyncSubscription


def settle(delivery: Delivery) -> Verdict | None:
    """A handler may return any verdict, or None."""
    if delivery.redelivered:
        return Retry(after=5.0)
    if not delivery.body:
        return Reject("empty")
    assert_type(delivery.headers, Mapping[str, str])
    assert_type(delivery.message, Message | None)
    return Ack()


def deployed(message: RefUpdated, delivery: Delivery) -> None:
    """A listener gets the message in its own type."""
    assert_type(delivery.attempt, int)
    print(message.repo, message.ref, message.summary)


def either(message: Message, _: Delivery) -> Verdict | None:
    """A listener for two types gets one of them, and tells them apart by their class."""
    match message:
        case RefUpdated():
            return Ack()
        case BuildFinished():
            return Reject("not wanted")
    return None


def observe(event: Event) -> None:
    """Events are told apart by their class."""
    if isinstance(event, ConnectionLost):
        assert_type(event.reason, str)


def on_the_bus(settings: Settings, frame: Frame, message: Message) -> None:
    """Publish and subscribe."""
    with Bus("stomp://127.0.0.1"), Bus(BusSettings(address="stomp://127.0.0.1"), on_event=observe) as bus:
        assert_type(bus.state, BusState)
        assert_type(bus.wait_connected(5.0), bool)
        bus.add_listener(observe)()
        assert_type(bus.publish_many([("/topic/a", frame)]), int)
        try:
            assert_type(bus.publish_nowait("/topic/a", frame, ttl=60.0), Future[None])
        except WindowFull:
            bus.publish("/topic/a", frame, timeout=5.0)
        bus.send(message)
        bus.send(message, topics=settings.topics)
        assert_type(bus.subscribe("/queue/a", settle, durable=None, workers=2), Subscription)
        bus.listen(RefUpdated, deployed)
        bus.listen((RefUpdated, BuildFinished), either, topics=TopicMap(source="/topic/pushes"))


async def on_the_bus_of_asyncio(frame: Frame, message: Message) -> None:
    """Publish and subscribe in an event loop."""
    async with AsyncBus("stomp://127.0.0.1") as bus:
        await bus.publish("/topic/a", frame)
        await bus.send(message)
        await bus.publish_nowait("/topic/a", frame)
        async with bus.subscribe("/queue/a", prefetch=8) as deliveries:
            assert_type(deliveries, AsyncSubscription[Delivery])
            async for delivery in deliveries:
                assert_type(delivery, Delivery)
                deliveries.retry(after=2.0)
        async for push in bus.listen(RefUpdated, durable="pushes"):
            assert_type(push, RefUpdated)


def over_the_wire(headers: Mapping[str, str], body: bytes, key: SigningKey, trusted: AllowedSigners) -> None:
    """Encode, sign, verify, decode."""
    message = deploykit.decode(headers, body)
    assert_type(message, Message | None)  # None: a keepalive
    if message is None:
        return
    frame = deploykit.sign(deploykit.encode(message), key)
    assert_type(frame, Frame)
    assert_type(deploykit.verify(frame, trusted, datetime.now(UTC)), Signers)
    match message:
        case DeployRequested(site=site, ref=ref):
            print(site, ref)
        case _:
            pass


def on_disk(path: Path, frame: Frame) -> None:
    """Outbox, handled ids, mirrors, releases, settings."""
    settings = load_settings(path)
    assert_type(settings, Settings)
    Outbox(path).put("/topic/a", frame)
    with IdStore(path) as ids:
        assert_type(ids.claim("key", "id", b"digest", datetime.now(UTC)), Claim)
    with Mirror.open(path, "https://git.example.net/site.git", MirrorSettings()) as mirror:
        assert_type(mirror.fetch(), FetchResult)
        found = mirror.resolve("v1")
        runner = Runner(Site(path, SiteSettings(keep=3)), node="web1")
        assert_type(runner.deploy(mirror, "refs/tags/v1", found.commit), DeployResult)
