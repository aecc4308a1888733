"""Every bound of the embedded broker, as a client meets it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from deploykit.broker.server import BrokerLimits, EmbeddedBroker, FrameLimits
from tests.support.raw_stomp import RawStomp


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


def _client(broker: EmbeddedBroker, version: str = "1.2", **headers: str) -> RawStomp:
    return RawStomp.connected(broker.port, version, **headers)


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"SEND\n" + b"h:1\n" * 101 + b"\n\0", "more than 100 headers"),
        (b"SEND\nx:" + b"y" * 11_000 + b"\n\n\0", "header line"),
        (b"SEND\nx:" + b"y" * 500_000, "headers of a frame"),
        (b"SEND\n\n" + b"y" * 600_000, "body is longer"),
        (b"SEND\ncontent-length:600000\n\n", "body is longer"),
        (b"SEND\nx:\\t\n\n\0", "escape"),
    ],
)
def test_a_frame_beyond_the_limits_gets_an_error_and_the_end(data: bytes, detail: str) -> None:
    with EmbeddedBroker(frame_limits=FrameLimits(max_body=500_000)) as broker, _client(broker) as client:
        client.raw(data)
        error = client.error()
    assert error.headers["message"] == "bad frame"
    assert detail in error.body.decode()


def test_before_login_only_small_frames_are_read(broker: EmbeddedBroker) -> None:
    with RawStomp(broker.port) as client:
        client.raw(b"CONNECT\n\n" + b"x" * 5000)
        assert "4096" in client.error().body.decode()


def test_one_connection_too_many_is_turned_away() -> None:
    with EmbeddedBroker(limits=BrokerLimits(max_connections=1)) as broker:
        with _client(broker), pytest.raises(ConnectionError):
            _client(broker)
        broker.wait_for(lambda stats: stats.connections == 0)
        with _client(broker):
            pass


def test_who_does_not_log_in_is_sent_away() -> None:
    with EmbeddedBroker(limits=BrokerLimits(login_timeout=4.0)) as broker, _client(broker) as client:
        with RawStomp(broker.port) as silent:
            assert silent.error().headers["message"] == "no CONNECT came"
        client.ask("SEND", destination="/queue/a")  # it came before the silent one, and has logged in


def test_a_client_that_never_reads_its_receipts_is_read_no_further() -> None:
    with EmbeddedBroker(limits=BrokerLimits(max_output=100_000)) as broker, _client(broker) as client:
        frame = b"SEND\ndestination:/topic/t\nreceipt:" + b"r" * 10_000 + b"\n\n\0"
        client.socket.settimeout(1.5)
        with pytest.raises(TimeoutError):
            client.raw(frame * 4000)
        assert broker.stats().counters["published"] < 3000
        with _client(broker) as other:
            other.ask("SEND", destination="/queue/a")


def test_subscriptions_transactions_and_destinations_are_bounded() -> None:
    limits = BrokerLimits(max_subscriptions=1, max_transaction_bytes=10, max_queues=2)
    with EmbeddedBroker(limits=limits) as broker:
        with _client(broker) as client:
            client.ask("SUBSCRIBE", id="1", destination="/queue/a")
            client.send("SUBSCRIBE", id="2", destination="/queue/a")
            assert client.error().headers["message"] == "too many subscriptions"
        with _client(broker) as client:
            client.ask("BEGIN", transaction="t")
            client.send("SEND", b"12345678901", destination="/queue/a", transaction="t")
            assert client.error().headers["message"] == "transaction too large"
        with _client(broker) as client:
            for number in range(101):
                client.send("BEGIN", transaction=str(number))
            assert client.error().headers["message"] == "too many transactions"
        for command, headers in (
            ("SEND", {"destination": "/queue/c"}),
            ("SUBSCRIBE", {"destination": "/queue/c", "id": "9"}),
            ("SUBSCRIBE", {"destination": "/topic/t", "id": "9", "durable": "true"}),
        ):
            with _client(broker) as client:
                client.ask("SEND", destination="/queue/a")
                client.ask("SEND", destination="/queue/b")
                client.send(command, **headers)
                assert client.error().headers["message"] == "too many destinations"


def test_a_full_queue_holds_the_publisher_back_until_there_is_room() -> None:
    with (
        EmbeddedBroker(limits=BrokerLimits(max_queue_messages=3)) as broker,
        _client(broker, heart_beat="0,60") as sender,
        _client(broker) as reader,
    ):
        for number in range(3):
            sender.ask("SEND", str(number).encode(), destination="/queue/a")
        sender.send("SEND", b"3", destination="/queue/a", receipt="held")
        sender.send("SEND", b"4", destination="/queue/other", receipt="behind")
        assert sender.silent(0.3)
        assert sender.beats(), "heart-beats go on"
        assert broker.stats().queues == {"/queue/a": 3}
        reader.ask("SUBSCRIBE", id="1", destination="/queue/a", ack="client-individual")
        reader.ack(reader.message())
        assert [sender.frame().headers["receipt-id"] for _ in range(2)] == ["held", "behind"]
        assert [reader.message().body for _ in range(3)] == [b"1", b"2", b"3"]


def test_a_topic_reader_that_falls_a_whole_queue_behind_is_ended_with_an_error() -> None:
    limits = BrokerLimits(max_queue_messages=20, high_water=10_000)
    with EmbeddedBroker(limits=limits) as broker, _client(broker) as slow, _client(broker) as sender:
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.ask("SUBSCRIBE", id="1", destination="/topic/t", ack="client-individual", prefetch_count="1")
        for _ in range(21):
            sender.ask("SEND", b"x" * 1000, destination="/topic/t")
        slow.message()
        assert slow.error().headers["message"] == "slow consumer"
        sender.ask("SEND", destination="/topic/t")


def test_a_client_that_never_reads_costs_bounded_memory(broker: EmbeddedBroker) -> None:
    with _client(broker) as reader, _client(broker) as sender:
        reader.ask("SUBSCRIBE", id="1", destination="/queue/a")
        for _ in range(40):
            sender.ask("SEND", b"x" * 1_000_000, destination="/queue/a")
        held = broker.stats().queues["/queue/a"]
        assert held > 25, "what the socket does not take stays in the queue, for others"
        with _client(broker) as other:
            other.ask("SUBSCRIBE", id="1", destination="/queue/a")
            for _ in range(held):
                other.message()
