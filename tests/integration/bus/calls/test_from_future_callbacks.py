"""A callback of a future that would wait for its own thread is refused at once, and what does not wait works."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Final

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.errors import DeploykitError, PublishRefused, UsageError
from tests.support.bus import Collector, fast, text
from tests.support.buscalls import (
    Scene,
    look,
    publish,
    publish_many,
    publish_to_where_it_comes_from,
    scene_at,
    wait_active,
    wait_connected,
)
from tests.support.busplaces import WAIT, Place
from tests.support.wait import wait_until

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
                first = scene.bus.publish_nowait(place.out, frame, timeout=0.1 if outcome == "too-late" else WAIT)
                first.add_done_callback(called_back)
                wait([first], WAIT)
                wait([raised], 1.0)
            said = raised.result(WAIT / 4)
            broker.faults.clear()
            assert isinstance(said, UsageError) == (call in REFUSED)
            if said is not None:
                assert "publish_nowait()" in str(said)
                scene.bus.publish(place.out, text("alive"), timeout=WAIT)


def test_what_the_buss_own_thread_does_later_must_not_wait_for_it() -> None:
    with EmbeddedBroker() as broker, Bus(fast(broker.address)) as bus:
        assert bus.wait_connected(WAIT)
        said: Future[str] = Future()

        def later() -> None:
            try:
                bus.publish("/queue/q", text("x"), timeout=WAIT)
            except UsageError as error:
                said.set_result(str(error))

        bus._services.call_later(0.0, later)
        assert "publish()" in said.result(WAIT)


def test_there_is_no_room_for_a_callback_that_publishes_into_a_full_window() -> None:
    with EmbeddedBroker() as broker, Bus(fast(broker.address, window=4)) as bus:
        assert bus.wait_connected(WAIT)
        problems: list[object] = []

        def more(_: Future[None]) -> None:
            try:
                for _n in range(10):
                    bus.publish_nowait("/queue/q", text("more"), timeout=WAIT)
            except DeploykitError as error:
                problems.append(str(error))

        bus.publish_nowait("/queue/q", text("x")).add_done_callback(more)
        wait_until(lambda: problems, timeout=WAIT / 2)
        assert "no room" in str(problems[0])
        bus.publish("/queue/q", text("alive"), timeout=WAIT)
