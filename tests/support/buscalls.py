"""What a bus can be asked to do, each a function of the scene it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import attrs

from deploykit.bus import Bus, Subscription
from deploykit.bus.events import Event
from deploykit.bus.inspection import connection_of
from deploykit.errors import WindowFull
from tests.support.bus import Collector, text
from tests.support.busplaces import WAIT, Place
from tests.support.wait import wait_until


@attrs.define(kw_only=True)
class Scene:
    """What a call finds."""

    place: Place
    bus: Bus
    own: Subscription | None = None
    other: Subscription | None = None
    durable: Subscription | None = None


def publish(scene: Scene) -> None:
    scene.bus.publish(scene.place.out, text("x"), timeout=WAIT)


def publish_to_where_it_comes_from(scene: Scene) -> None:
    scene.bus.publish(scene.place.flooded, text("again"), timeout=WAIT)


def publish_nowait(scene: Scene) -> None:
    """With a window that is smaller than what is sent, so that it has no room for all."""
    futures = []
    for n in range(100):
        with suppress(WindowFull):
            futures.append(scene.bus.publish_nowait(scene.place.out, text(str(n)), timeout=WAIT))
    assert futures
    for future in futures:
        future.result(WAIT)


def publish_many(scene: Scene) -> None:
    assert scene.bus.publish_many([(scene.place.out, text("x"))] * 100, timeout=WAIT) == 100


def ask_and_wait_for_the_answer(scene: Scene) -> None:
    """The answer comes through another subscription of the same bus."""
    answers = Collector()
    asking = scene.bus.subscribe(f"{scene.place.out}-answers", answers)
    assert asking.wait_active(WAIT)
    scene.bus.publish(f"{scene.place.out}-answers", text("answer"), timeout=WAIT)
    answers.wait(1, WAIT)
    asking.unsubscribe()


def wait_active(scene: Scene) -> None:
    assert scene.bus.subscribe(f"{scene.place.out}-new", Collector()).wait_active(WAIT)


def wait_connected(scene: Scene) -> None:
    assert scene.bus.wait_connected(WAIT)


def end_another_subscription(scene: Scene) -> None:
    assert scene.other is not None
    scene.other.unsubscribe(timeout=WAIT)
    wait_until(lambda: scene.other not in scene.bus._services.subscriptions)


def forget_a_durable_subscription(scene: Scene) -> None:
    if scene.durable is not None:
        scene.durable.unsubscribe(forget=True, timeout=WAIT)
        wait_until(lambda: scene.durable not in scene.bus._services.subscriptions)


def look(scene: Scene) -> None:
    """Everything that only looks."""
    scene.bus._services.call_later(0.0, lambda: None)
    wait_until(lambda: connection_of(scene.bus) is not None and scene.bus.problem is None)
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
        assert bus.wait_connected(WAIT)
        yield scene
