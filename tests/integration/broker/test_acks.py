"""Acknowledging, rejecting and transactions on the embedded broker, on each STOMP version."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploykit.broker.frames import VERSIONS, StompFrame
from deploykit.broker.server import BrokerLimits, EmbeddedBroker
from tests.support.raw_stomp import RawStomp

_every_version = pytest.mark.parametrize("version", VERSIONS)


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


def _subscribed(broker: EmbeddedBroker, version: str = "1.2", ack: str = "client-individual", **more: str) -> RawStomp:
    client = RawStomp.connected(broker.port, version)
    client.ask("SUBSCRIBE", id="1", destination="/queue/a", ack=ack, **more)
    return client


def _fill(broker: EmbeddedBroker, count: int, destination: str = "/queue/a") -> None:
    with RawStomp.connected(broker.port) as client:
        for number in range(count):
            client.ask("SEND", str(number).encode(), destination=destination, colour="blue")


def _take(client: RawStomp, count: int) -> list[StompFrame]:
    return [client.message() for _ in range(count)]


@_every_version
def test_what_was_acknowledged_is_gone_and_the_rest_comes_again_in_order(broker: EmbeddedBroker, version: str) -> None:
    _fill(broker, 4)
    with _subscribed(broker, version) as client:
        messages = _take(client, 4)
        assert all("redelivered" not in one.headers for one in messages)
        client.ack(messages[1])
    with _subscribed(broker, version) as client:
        again = _take(client, 3)
    assert [one.body for one in again] == [b"0", b"2", b"3"]
    assert {one.headers["redelivered"] for one in again} == {"true"}
    assert {one.headers["delivery-count"] for one in again} == {"2"}
    assert [one.headers["message-id"] for one in again] == [messages[n].headers["message-id"] for n in (0, 2, 3)]


@_every_version
def test_client_mode_acknowledges_everything_before_too(broker: EmbeddedBroker, version: str) -> None:
    _fill(broker, 4)
    with _subscribed(broker, version, ack="client") as client:
        client.ack(_take(client, 4)[2])
        assert broker.stats().queues == {"/queue/a": 1}


@_every_version
def test_auto_mode_is_done_when_sent(broker: EmbeddedBroker, version: str) -> None:
    _fill(broker, 2)
    with _subscribed(broker, version, ack="auto") as client:
        _take(client, 2)
        assert broker.stats().queues == {"/queue/a": 0}
    broker.wait_for(lambda stats: stats.queues == {})


@_every_version
def test_a_rejected_message_lies_in_the_dead_letter_queue_with_its_reason(broker: EmbeddedBroker, version: str) -> None:
    _fill(broker, 1)
    with _subscribed(broker, version) as client:
        client.ack(client.message(), "NACK", reason="no such site: x")
        client.ask("SUBSCRIBE", id="2", destination="/queue/DLQ.a", ack="client-individual")
        dead = client.message()
        assert dead.body == b"0"
        expected = {
            "destination": "/queue/DLQ.a",
            "original-destination": "/queue/a",
            "dead-letter-reason": "no such site: x",
            "dead-letter-deliveries": "1",
            "colour": "blue",
        }
        assert {name: dead.headers[name] for name in expected} == expected
        assert "redelivered" not in dead.headers
        client.ack(dead, "NACK")
        broker.wait_for(lambda stats: stats.counters.get("dropped") == 1)


def test_client_mode_rejects_everything_before_too(broker: EmbeddedBroker) -> None:
    _fill(broker, 3)
    with _subscribed(broker, ack="client") as client:
        client.ack(_take(client, 3)[1], "NACK")
    assert [frame.body for frame in broker.peek("/queue/DLQ.a")] == [b"0", b"1"]
    assert {frame.headers["dead-letter-reason"] for frame in broker.peek("/queue/DLQ.a")} == {"rejected"}


@_every_version
def test_a_requeued_message_takes_its_old_place_and_counts_deliveries(broker: EmbeddedBroker, version: str) -> None:
    _fill(broker, 3)
    with _subscribed(broker, version, prefetch_count="2") as client:
        first, second = _take(client, 2)
        client.ack(second, "NACK", requeue="true")
        again = client.message()
        assert (again.body, again.headers["delivery-count"]) == (b"1", "2")
        client.ack(first, "NACK", requeue="true")
        client.ack(again, "NACK", requeue="true")
        bodies = [(one.body, one.headers["delivery-count"]) for one in _take(client, 2)]
        assert sorted(bodies) == [(b"0", "2"), (b"1", "3")]


def test_a_rejected_topic_message_is_dead_lettered_once_for_the_subscription_that_rejected_it(
    broker: EmbeddedBroker,
) -> None:
    with RawStomp.connected(broker.port) as client:
        client.ask("SUBSCRIBE", id="1", destination="/topic/t", ack="client-individual", durable="true")
        client.ask("SUBSCRIBE", id="2", destination="/topic/t", ack="client-individual")
        client.ask("SEND", b"x", destination="/topic/t")
        first, second = _take(client, 2)
        client.ack(first, "NACK")
        client.ack(second)
    (dead,) = broker.peek("/queue/DLQ.t")
    assert dead.headers["dead-letter-subscription"] == "1"


def test_a_full_dead_letter_queue_drops_its_oldest() -> None:
    with EmbeddedBroker(limits=BrokerLimits(max_queue_messages=2)) as broker, _subscribed(broker) as client:
        for number in range(3):
            client.ask("SEND", str(number).encode(), destination="/queue/a")
            client.ack(client.message(), "NACK")
        assert [frame.body for frame in broker.peek("/queue/DLQ.a")] == [b"1", b"2"]
        assert broker.stats().counters["dropped"] == 1


@_every_version
@pytest.mark.parametrize("command", ["ACK", "NACK"])
def test_settling_what_is_not_under_way_here_is_an_error(broker: EmbeddedBroker, version: str, command: str) -> None:
    _fill(broker, 1)
    with _subscribed(broker, version) as client:
        message = client.message()
        client.ack(message)
        client.send(command, **{"id": message.headers.get("ack", "1"), "message-id": "x", "subscription": "1"})
        assert client.error().headers["message"] == "unknown message"


@_every_version
def test_another_connection_cannot_acknowledge(broker: EmbeddedBroker, version: str) -> None:
    _fill(broker, 1)
    with _subscribed(broker, version) as client:
        message = client.message()
        with _subscribed(broker, version) as thief:
            stolen = {name: message.headers[name] for name in ("message-id", "subscription")}
            thief.send("ACK", id=message.headers.get("ack", ""), **stolen)
            assert thief.error().headers["message"] == "unknown message"
        client.ack(message)


@pytest.mark.parametrize(("version", "missing"), [("1.0", "message-id"), ("1.1", "subscription"), ("1.2", "id")])
def test_an_ack_without_its_version_s_headers_is_an_error(broker: EmbeddedBroker, version: str, missing: str) -> None:
    _fill(broker, 1)
    with _subscribed(broker, version) as client:
        message = client.message()
        names = {"id": message.headers.get("ack", ""), "message-id": message.headers["message-id"], "subscription": "1"}
        del names[missing]
        client.send("ACK", **names)
        assert client.error().headers["message"] == f"no {missing}"


@_every_version
def test_unsubscribing_hands_back_and_a_late_ack_does_no_harm(broker: EmbeddedBroker, version: str) -> None:
    _fill(broker, 1)
    with _subscribed(broker, version) as client, _subscribed(broker, version) as other:
        message = client.message()
        client.ask("UNSUBSCRIBE", id="1")
        assert other.message().headers["redelivered"] == "true"
        client.ack(message)
        assert broker.stats().queues == {"/queue/a": 1}


def test_prefetch_bounds_what_is_under_way(broker: EmbeddedBroker) -> None:
    _fill(broker, 5)
    with _subscribed(broker, prefetch_count="2") as client:
        first, _second = _take(client, 2)
        assert client.silent()
        client.ack(first)
        assert client.message().body == b"2"
        assert client.silent()


# -- transactions ------------------------------------------------------------------------------------------------------


@_every_version
def test_a_committed_transaction_happens_whole_and_an_aborted_one_not_at_all(
    broker: EmbeddedBroker, version: str
) -> None:
    _fill(broker, 2)
    with _subscribed(broker, version) as client:
        first, second = _take(client, 2)
        for name, message in (("keep", first), ("undo", second)):
            client.ask("BEGIN", transaction=name)
            client.ask("SEND", name.encode(), destination="/queue/b", transaction=name)
            client.ack(message, transaction=name)
        assert broker.stats().queues == {"/queue/a": 2}
        client.ask("ABORT", transaction="undo")
        client.ask("COMMIT", transaction="keep")
        assert broker.stats().queues == {"/queue/a": 1, "/queue/b": 1}
        assert [frame.body for frame in broker.peek("/queue/b")] == [b"keep"]
        client.ack(second)


def test_cumulative_acks_in_one_transaction_add_up(broker: EmbeddedBroker) -> None:
    _fill(broker, 3)
    with _subscribed(broker, ack="client") as client:
        messages = _take(client, 3)
        client.ask("BEGIN", transaction="t")
        for index in (1, 0, 2):
            client.ack(messages[index], transaction="t")
        client.ask("COMMIT", transaction="t")
        assert broker.stats().queues == {"/queue/a": 0}


def test_a_lost_connection_aborts(broker: EmbeddedBroker) -> None:
    with RawStomp.connected(broker.port) as client:
        client.ask("BEGIN", transaction="t")
        client.ask("SEND", destination="/queue/b", transaction="t")
    broker.wait_for(lambda stats: stats.connections == 0)
    assert broker.stats().queues == {}


@pytest.mark.parametrize(
    ("command", "headers"),
    [
        ("BEGIN", {}),
        ("COMMIT", {"transaction": "t"}),
        ("ABORT", {"transaction": "t"}),
        ("SEND", {"transaction": "t", "destination": "/queue/a"}),
    ],
)
def test_a_transaction_that_was_not_begun_is_an_error(
    broker: EmbeddedBroker, command: str, headers: dict[str, str]
) -> None:
    with RawStomp.connected(broker.port) as client:
        client.send(command, receipt="r", **headers)
        error = client.error()
    assert "transaction" in error.headers["message"]
    assert error.headers["receipt-id"] == "r"
    assert broker.stats().queues == {}


def test_a_transaction_is_bounded() -> None:
    limits = BrokerLimits(max_transaction_frames=2)
    with EmbeddedBroker(limits=limits) as broker, RawStomp.connected(broker.port) as client:
        client.ask("BEGIN", transaction="t")
        for _ in range(3):
            client.send("SEND", destination="/queue/a", transaction="t")
        assert client.error().headers["message"] == "transaction too large"


def test_a_commit_into_a_full_queue_waits_for_room() -> None:
    with EmbeddedBroker(limits=BrokerLimits(max_queue_messages=1)) as broker:
        _fill(broker, 1)
        with RawStomp.connected(broker.port) as sender, RawStomp.connected(broker.port) as reader:
            sender.ask("BEGIN", transaction="t")
            sender.ask("SEND", b"late", destination="/queue/a", transaction="t")
            sender.send("COMMIT", transaction="t", receipt="done")
            assert sender.silent()
            reader.ask("SUBSCRIBE", id="1", destination="/queue/a", ack="client-individual")
            reader.ack(reader.message())
            assert sender.frame().headers["receipt-id"] == "done"
            assert reader.message().body == b"late"
