"""Acknowledged, given back, rejected: on every broker, by every version, plain and TLS."""

from __future__ import annotations

from deploykit.bus import Delivery, Reject, Retry
from tests.support.bus import Collector, running, text
from tests.support.conformance import Place
from tests.support.wait import wait_until


def test_an_unacknowledged_message_is_delivered_again_and_an_acknowledged_one_is_not(
    place: Place, unique_name: str
) -> None:
    def hold(delivery: Delivery) -> Retry | None:
        return Retry(60) if delivery.body == b"hold" else None

    first, second = Collector(hold), Collector()
    with running(place.settings) as bus:
        bus.subscribe(f"/queue/{unique_name}", first)
        bus.publish(f"/queue/{unique_name}", text("done"))
        bus.publish(f"/queue/{unique_name}", text("hold"))
        first.wait(2)
    with running(place.settings) as bus:
        bus.subscribe(f"/queue/{unique_name}", second)
        bus.publish(f"/queue/{unique_name}", text("end"))
        second.wait(2)
    assert sorted(second.bodies) == ["end", "hold"]


def test_a_rejected_message_is_a_dead_letter_with_its_reason(place: Place, unique_name: str) -> None:
    dead = Collector()
    with running(place.settings) as bus:
        bus.subscribe(f"/queue/{unique_name}", Collector(lambda _: Reject("no good: at all")))
        bus.subscribe(place.settings.dead_letter, dead)
        bus.publish(f"/queue/{unique_name}", text("x", subject="s: 1"))
        (letter,) = dead.wait(1)
    assert letter.body == b"x"
    assert letter.headers["dead-letter-reason"] == "no good: at all"
    assert letter.headers["original-destination"] == f"/queue/{unique_name}"
    assert letter.headers["subject"] == "s: 1"


def test_a_failing_message_is_asked_about_so_often_and_no_more(place: Place, unique_name: str) -> None:
    failing, dead = Collector(lambda _: Retry(0.01)), Collector()
    with running(place.settings) as bus:
        bus.subscribe(f"/queue/{unique_name}", failing, max_attempts=3)
        bus.subscribe(place.settings.dead_letter, dead)
        bus.publish(f"/queue/{unique_name}", text("x"))
        dead.wait(1)
        assert [delivery.attempt for delivery in failing.deliveries] == [1, 2, 3]


def test_requeue_gives_the_message_back(place: Place, unique_name: str) -> None:
    refusing = Collector(lambda delivery: Reject("not now") if len(refusing) == 1 else None)
    with running(place.settings) as bus:
        bus.subscribe(f"/queue/{unique_name}", refusing, on_failure="requeue", max_attempts=1)
        bus.publish(f"/queue/{unique_name}", text("x"))
        refusing.wait(2)
        wait_until(lambda: bus.counters.acked >= 1)
    assert refusing.bodies == ["x", "x"]
