"""A message arrives as it was sent, in order, where it should: on every broker, by every version, plain and TLS."""

from __future__ import annotations

import time

import attrs
import pytest

from deploykit.bus.events import Connected
from deploykit.errors import DialectError
from tests.support.bus import Collector, Events, running, text
from tests.support.conformance import Place
from tests.support.wait import wait_until


def test_the_version_offered_is_the_version_spoken_and_the_broker_is_recognised(place: Place) -> None:
    events = Events()
    with running(place.settings, on_event=events):
        (connected,) = events.wait(Connected)
    assert connected.version == place.version
    assert connected.dialect == place.dialect.name


def test_a_message_arrives_as_it_was_sent(place: Place, unique_name: str) -> None:
    collector = Collector()
    headers = {
        "subject": "[app] main moved: C:\\conf, 100 % grüße",
        "content-type": "application/cloudevents+json",
        "x": "",
        "deploykit-id": "id-1",
    }
    if place.version != "1.0":
        headers["lines"] = "one\ntwo"
    body = b'{"a": "\x00\n\xc3\xa4\xff"}' + bytes(range(256))
    with running(place.settings) as bus:
        bus.subscribe(f"/queue/{unique_name}", collector)
        bus.publish(f"/queue/{unique_name}", attrs.evolve(text(""), headers=headers, body=body))
        (delivery,) = collector.wait(1)
    assert delivery.body == body
    assert delivery.destination == f"/queue/{unique_name}"
    assert delivery.id == "id-1"
    assert {name: delivery.headers.get(name, "") for name in headers} == headers


def test_names_with_a_slash_work_and_come_back_as_they_were(place: Place, unique_name: str) -> None:
    collector = Collector()
    destination = f"/topic/{unique_name}/a.b-c"
    with running(place.settings) as bus:
        bus.subscribe(destination, collector).wait_active(30)
        bus.publish(destination, text("x"))
        assert collector.wait(1)[0].destination == destination


def test_a_topic_reaches_every_subscriber_and_a_queue_one(place: Place, unique_name: str) -> None:
    first, second = Collector(), Collector()
    with running(place.settings) as one, running(place.settings) as two:
        for bus, collector in ((one, first), (two, second)):
            bus.subscribe(f"/topic/{unique_name}", collector).wait_active(30)
            bus.subscribe(f"/queue/{unique_name}", collector).wait_active(30)
        for number in range(10):
            one.publish(f"/topic/{unique_name}", text(f"topic {number}"))
            one.publish(f"/queue/{unique_name}", text(f"queue {number}"))
        wait_until(lambda: len(first) + len(second) == 30)
    topic = [f"topic {number}" for number in range(10)]
    for collector in (first, second):
        assert [body for body in collector.bodies if body.startswith("topic")] == topic
    assert sorted(body for c in (first, second) for body in c.bodies if body.startswith("queue")) == sorted(
        f"queue {number}" for number in range(10)
    )


def test_many_in_flight_keep_their_order(place: Place, unique_name: str) -> None:
    collector = Collector()
    with running(place.settings) as bus:
        bus.subscribe(f"/queue/{unique_name}", collector)
        bus.publish_many(((f"/queue/{unique_name}", text(str(n))) for n in range(1000)), timeout=60)
        collector.wait(1000, timeout=60)
    assert collector.bodies == [str(n) for n in range(1000)]


def test_ttl_lets_a_message_go_or_is_refused(place: Place, unique_name: str) -> None:
    collector = Collector()
    with running(place.settings) as bus:
        if place.dialect.ttl is None:
            with pytest.raises(DialectError):
                bus.publish(f"/queue/{unique_name}", text("x"), ttl=0.2)
            return
        bus.publish(f"/queue/{unique_name}", text("short"), ttl=0.2)
        bus.publish(f"/queue/{unique_name}", text("long"), ttl=60)
        time.sleep(0.5)
        bus.subscribe(f"/queue/{unique_name}", collector)
        collector.wait(1)
        time.sleep(0.2)
        assert collector.bodies == ["long"]


def test_a_selector_is_honoured_or_refused(place: Place, unique_name: str) -> None:
    collector = Collector()
    with running(place.settings) as bus:
        if not place.dialect.selectors:
            with pytest.raises(DialectError):
                bus.subscribe(f"/queue/{unique_name}", collector, selector="colour = 'red'")
            return
        bus.subscribe(f"/queue/{unique_name}", collector, selector="colour = 'red'").wait_active(30)
        bus.publish(f"/queue/{unique_name}", text("blue", colour="blue"))
        bus.publish(f"/queue/{unique_name}", text("red", colour="red"))
        collector.wait(1)
        assert collector.bodies == ["red"]
