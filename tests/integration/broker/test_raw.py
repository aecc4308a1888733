"""The embedded broker over a plain socket, on each STOMP version."""

from __future__ import annotations

import errno
import socket
import statistics
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from deploykit.broker.frames import VERSIONS
from deploykit.broker.server import EmbeddedBroker
from tests.support.bus import in_time
from tests.support.raw_stomp import RawStomp
from tests.support.wait import wait_until

_every_version = pytest.mark.parametrize("version", VERSIONS)


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


def _client(broker: EmbeddedBroker, version: str = "1.2", **headers: str) -> RawStomp:
    return RawStomp.connected(broker.port, version, **headers)


# -- connecting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offer", "agreed"), [(None, "1.0"), ("1.0,1.1,1.2", "1.2"), ("1.1,1.0", "1.1"), ("1.2,1.3", "1.2")]
)
def test_the_highest_common_version_is_taken(broker: EmbeddedBroker, offer: str | None, agreed: str) -> None:
    with RawStomp(broker.port) as client:
        client.send("CONNECT", **({} if offer is None else {"accept-version": offer}))
        answer = client.frame()
    assert (answer.command, answer.headers["version"]) == ("CONNECTED", agreed)
    assert answer.headers["server"].startswith("deploykit-embedded/")


def test_no_common_version_is_refused_and_names_those_there_are(broker: EmbeddedBroker) -> None:
    with RawStomp(broker.port) as client:
        client.send("STOMP", accept_version="1.3")
        assert client.error().headers["version"] == "1.0,1.1,1.2"


@pytest.mark.parametrize(
    "credentials",
    [{}, {"login": "u"}, {"login": "u", "passcode": "wrong-canary"}, {"login": "x", "passcode": ""}, {"login": "ü"}],
)
def test_a_wrong_login_is_refused_without_repeating_the_passcode(credentials: dict[str, str]) -> None:
    with EmbeddedBroker(users={"u": "right-canary"}) as broker, RawStomp(broker.port) as client:
        client.send("CONNECT", accept_version="1.2", **credentials)
        error = client.error()
        assert error.headers["message"] == "access refused"
        assert "canary" not in str(dict(error.headers)) + error.body.decode()
        with RawStomp.connected(broker.port, login="u", passcode="right-canary"):
            pass


@pytest.mark.parametrize("first", ["SEND", "SUBSCRIBE", "HELLO"])
def test_nothing_is_done_before_connect(broker: EmbeddedBroker, first: str) -> None:
    with RawStomp(broker.port) as client:
        client.send(first, destination="/queue/a", id="1")
        assert client.error().headers["message"] == "not connected"
    assert broker.stats().queues == {}


@_every_version
def test_disconnect_is_confirmed_and_closes(broker: EmbeddedBroker, version: str) -> None:
    with _client(broker, version) as client:
        client.ask("DISCONNECT")
        assert client.ended()


def test_a_client_that_resets_while_it_is_let_go_delays_nobody(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def reset(_: object) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    monkeypatch.setattr("asyncio.selector_events._SelectorSocketTransport.write_eof", reset)
    with _client(broker) as client:
        client.send("DISCONNECT", receipt="bye")
        wait_until(lambda: broker.stats().connections == 0)
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


def test_a_client_that_shuts_its_sending_side_still_gets_its_answers(broker: EmbeddedBroker) -> None:
    with RawStomp(broker.port) as client:
        client.raw(b"CONNECT\n\n\0SEND\ndestination:/queue/a\nreceipt:last\n\nx\0")
        client.socket.shutdown(socket.SHUT_WR)
        assert [client.frame().command, client.frame().headers["receipt-id"]] == ["CONNECTED", "last"]
        assert client.ended()


# -- heart-beats -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.1", "1.2"])
def test_the_broker_beats_as_often_as_it_promised(broker: EmbeddedBroker, version: str) -> None:
    with RawStomp(broker.port, version) as client:
        client.send("CONNECT", accept_version=version, heart_beat="0,100")
        assert client.frame().headers["heart-beat"] == "100,0"
        client.socket.settimeout(60)

        def median() -> float:  # one late wake-up of a busy machine is no broken promise
            times = [time.monotonic()]
            for _ in range(8):
                assert set(client.socket.recv(100)) == {ord("\n")}
                times.append(time.monotonic())
            return statistics.median(later - earlier for earlier, later in pairwise(times))

        in_time(0.1, median)


def test_no_beat_is_sent_where_none_was_asked_for_nor_on_1_0(broker: EmbeddedBroker) -> None:
    for version, wish in (("1.2", "0,0"), ("1.0", "100,100")):
        with _client(broker, version, heart_beat=wish) as client:
            before = client.bytes_read
            assert client.silent(0.3)
            assert client.bytes_read == before


def test_a_client_that_stops_beating_is_given_up_and_its_messages_go_back(broker: EmbeddedBroker) -> None:
    with _client(broker, heart_beat="1000,0") as silent, _client(broker) as other:
        silent.ask("SUBSCRIBE", id="1", destination="/queue/a", ack="client-individual")
        other.ask("SEND", b"x", destination="/queue/a")
        silent.message()
        other.ask("SUBSCRIBE", id="1", destination="/queue/a")
        assert other.message().headers["redelivered"] == "true"
        assert silent.ended()


def test_a_client_that_beats_is_kept(broker: EmbeddedBroker) -> None:
    with _client(broker, heart_beat="1000,0") as client:
        until = time.monotonic() + 4.5  # silent for 3 s it would be given up
        while time.monotonic() < until:
            client.raw(b"\n")
            time.sleep(0.1)
        client.ask("SEND", destination="/queue/a")


@pytest.mark.parametrize("wish", ["x", "1", "1,2,3", "-1,0", "1.5,1"])
def test_a_heart_beat_header_that_is_not_two_numbers_is_refused(broker: EmbeddedBroker, wish: str) -> None:
    with RawStomp(broker.port) as client:
        client.send("CONNECT", accept_version="1.2", heart_beat=wish)
        assert client.error().headers["message"] == "bad heart-beat"


# -- queues and topics -------------------------------------------------------------------------------------------------


@_every_version
def test_a_queue_keeps_messages_in_order_until_somebody_comes(broker: EmbeddedBroker, version: str) -> None:
    with _client(broker, version) as client:
        for number in range(5):
            client.ask("SEND", str(number).encode(), destination="/queue/a", x=f"v{number}")
        client.ask("SUBSCRIBE", id="s1", destination="/queue/a")
        got = [client.message() for _ in range(5)]
    assert [(one.body, one.headers["x"]) for one in got] == [(str(n).encode(), f"v{n}") for n in range(5)]
    assert {one.headers["subscription"] for one in got} == {"s1"}
    assert len({one.headers["message-id"] for one in got}) == 5


def test_competing_consumers_share_a_queue(broker: EmbeddedBroker) -> None:
    with _client(broker) as one, _client(broker) as two, _client(broker) as sender:
        for client in (one, two):
            client.ask("SUBSCRIBE", id="1", destination="/queue/a", ack="client", prefetch_count="10")
        for number in range(10):
            sender.ask("SEND", str(number).encode(), destination="/queue/a")
        bodies = [sorted(client.message().body for _ in range(5)) for client in (one, two)]
        assert one.silent()
        assert two.silent()
    assert sorted(bodies[0] + bodies[1]) == [str(n).encode() for n in range(10)]


def test_every_topic_subscription_gets_a_copy_and_nothing_from_before(broker: EmbeddedBroker) -> None:
    with _client(broker) as one, _client(broker, "1.0") as two:
        one.ask("SEND", b"early", destination="/topic/t")
        one.ask("SUBSCRIBE", id="1", destination="/topic/t")
        one.ask("SUBSCRIBE", id="2", destination="/topic/t")
        two.ask("SUBSCRIBE", destination="/topic/t")
        one.ask("SEND", b"x", destination="/topic/t")
        assert [one.message().headers["subscription"], one.message().headers["subscription"]] == ["1", "2"]
        message = two.message()
        assert message.body == b"x"
        assert "subscription" not in message.headers


@pytest.mark.parametrize("destination", ["", "a", "/queue/", "/topic/", "queue/a", "/temp-queue/a", "/queue/a\nb"])
@pytest.mark.parametrize("command", ["SEND", "SUBSCRIBE"])
def test_other_destinations_are_refused(broker: EmbeddedBroker, command: str, destination: str) -> None:
    with _client(broker) as client:
        client.send(command, id="1", destination=destination, receipt="r")
        error = client.error()
        assert (error.headers["message"], error.headers["receipt-id"]) == ("bad destination", "r")


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"selector": "a = 1"}, "selectors are not supported"),
        ({"ack": "sometimes"}, "unknown ack mode"),
        ({"prefetch-count": "many"}, "bad prefetch-count"),
        ({"durable": "true", "auto-delete": "true"}, "contradiction"),
        ({"activemq.subscriptionName": "x"}, "no client-id"),
    ],
)
def test_a_subscription_that_cannot_be_kept_as_asked_is_refused(
    broker: EmbeddedBroker, headers: dict[str, str], message: str
) -> None:
    with _client(broker) as client:
        client.send("SUBSCRIBE", id="1", destination="/topic/t", receipt="r", **headers)
        error = client.error()
    assert (error.headers["message"], error.headers["receipt-id"]) == (message, "r")


@pytest.mark.parametrize("version", ["1.1", "1.2"])
def test_a_subscription_needs_an_id_of_its_own(broker: EmbeddedBroker, version: str) -> None:
    with _client(broker, version) as client:
        client.send("SUBSCRIBE", destination="/queue/a")
        assert client.error().headers["message"] == "no id"
    with _client(broker, version) as client:
        client.ask("SUBSCRIBE", id="1", destination="/queue/a")
        client.send("SUBSCRIBE", id="1", destination="/queue/b")
        assert client.error().headers["message"] == "duplicate subscription id"


@_every_version
def test_unsubscribe_ends_delivery(broker: EmbeddedBroker, version: str) -> None:
    with _client(broker, version) as client:
        client.ask("SUBSCRIBE", id="1", destination="/topic/t")
        client.ask("UNSUBSCRIBE", id="1")
        client.ask("SEND", b"x", destination="/topic/t")
        assert client.silent()
        client.send("UNSUBSCRIBE", id="1")
        assert client.error().headers["message"] == "no such subscription"


def test_headers_are_escaped_for_each_reader_and_ours_cannot_be_forged(broker: EmbeddedBroker) -> None:
    forged = {"message-id": "1", "subscription": "evil", "ack": "evil", "redelivered": "true", "delivery-count": "9"}
    readers = {version: _client(broker, version) for version in VERSIONS}
    for reader in readers.values():
        reader.ask("SUBSCRIBE", id="1", destination="/topic/t")
    with _client(broker) as sender:
        sender.ask("SEND", destination="/topic/t", **{"a:b": "1:2\n3\\", **forged})
    got = {version: reader.message().headers for version, reader in readers.items()}
    assert got["1.2"]["a:b"] == got["1.1"]["a:b"] == "1:2\n3\\"
    assert got["1.0"]["a b"] == "1:2 3\\"
    for headers in got.values():
        assert headers["subscription"] == "1"
        assert "redelivered" not in headers
        assert "ack" not in headers
    for reader in readers.values():
        reader.close()


def test_expired_messages_are_dropped_whether_anybody_waits_or_not(broker: EmbeddedBroker) -> None:
    past = str(int(time.time() * 1000) - 1000)
    with _client(broker) as client:
        client.ask("SEND", b"old", destination="/queue/a", expires=past)
        client.ask("SEND", b"brief", destination="/queue/b", expiration="50")
        client.ask("SEND", b"kept", destination="/queue/a", expires="0")
        broker.wait_for(lambda stats: stats.counters.get("expired") == 2)
        client.ask("SUBSCRIBE", id="1", destination="/queue/a")
        assert client.message().body == b"kept"
        client.ask("SEND", b"old for a reader that waits", destination="/queue/a", expires=past)
        assert client.silent()
        client.send("SEND", destination="/queue/a", expires="tomorrow")
        assert client.error().headers["message"] == "bad expires"
