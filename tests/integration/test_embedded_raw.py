"""The embedded broker over a plain socket, on each STOMP version."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from deploykit.errors import UsageError
from deploykit.testing.broker import BrokerLimits, EmbeddedBroker, FrameLimits
from deploykit.testing.stomp_frames import VERSIONS
from tests.support.raw_stomp import RawStomp

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
        client.socket.settimeout(2)
        times = [time.monotonic()]
        for _ in range(8):
            assert set(client.socket.recv(100)) == {ord("\n")}
            times.append(time.monotonic())
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert sorted(gaps)[len(gaps) // 2] < 0.1  # the median: one late wake-up of a busy machine is no broken promise


def test_no_beat_is_sent_where_none_was_asked_for_nor_on_1_0(broker: EmbeddedBroker) -> None:
    for version, wish in (("1.2", "0,0"), ("1.0", "100,100")):
        with _client(broker, version, heart_beat=wish) as client:
            before = client.bytes_read
            assert client.silent(0.3)
            assert client.bytes_read == before


def test_a_client_that_stops_beating_is_given_up_and_its_messages_go_back(broker: EmbeddedBroker) -> None:
    with _client(broker, heart_beat="50,0") as silent, _client(broker) as other:
        silent.ask("SUBSCRIBE", id="1", destination="/queue/a", ack="client-individual")
        other.ask("SEND", b"x", destination="/queue/a")
        silent.message()
        other.ask("SUBSCRIBE", id="1", destination="/queue/a")
        assert other.message().headers["redelivered"] == "true"
        assert silent.ended()


def test_a_client_that_beats_is_kept(broker: EmbeddedBroker) -> None:
    with _client(broker, heart_beat="50,0") as client:
        until = time.monotonic() + 0.6
        while time.monotonic() < until:
            client.raw(b"\n")
            time.sleep(0.02)
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


# -- bounds ------------------------------------------------------------------------------------------------------------


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
    with EmbeddedBroker(limits=BrokerLimits(login_timeout=0.1)) as broker:
        with RawStomp(broker.port) as silent:
            assert silent.error().headers["message"] == "no CONNECT came"
        with _client(broker) as client:
            assert client.silent(0.3)
            client.ask("SEND", destination="/queue/a")


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
        seen = sender.bytes_read
        assert sender.silent(0.3)
        assert sender.bytes_read > seen, "heart-beats go on"
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


# -- where it listens --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_an_address_that_others_reach_needs_the_flag(host: str) -> None:
    with pytest.raises(UsageError, match="can be reached by others"):
        EmbeddedBroker(host=host)


def test_the_flag_opens_it() -> None:
    with EmbeddedBroker(host="0.0.0.0", allow_remote=True) as broker, _client(broker):
        pass


def test_a_port_in_use_is_named_with_the_way_out(broker: EmbeddedBroker) -> None:
    second = EmbeddedBroker(port=broker.port)
    with pytest.raises(UsageError, match=rf"port {broker.port} on 127\.0\.0\.1 is in use \(.*0 picks a free one\)"):
        second.start()
    assert not second.running
    second.stop()


def test_an_address_that_is_not_ours_is_said_in_one_line() -> None:
    with pytest.raises(UsageError, match=r"cannot listen on 192\.0\.2\.1"):
        EmbeddedBroker(host="192.0.2.1", allow_remote=True).start()


def test_stop_and_start_keep_the_port_and_forget_the_rest(broker: EmbeddedBroker) -> None:
    port = broker.port
    with _client(broker) as client:
        client.ask("SEND", destination="/queue/a", persistent="true")
        broker.stop()
        assert client.ended()
    broker.start()
    assert (broker.port, broker.stats().queues) == (port, {})


def test_tls(tmp_path: Path) -> None:
    trust, server = _certificates(tmp_path)
    with EmbeddedBroker(users={"u": "p"}, tls=server) as broker:
        assert broker.address == f"stomp+ssl://u:p@127.0.0.1:{broker.port}"
        with RawStomp(broker.port) as plain:
            plain.send("CONNECT")
            assert plain.ended()
        with RawStomp(broker.port) as client:
            client.socket = trust.wrap_socket(client.socket, server_hostname="127.0.0.1")
            client.send("CONNECT", accept_version="1.2", login="u", passcode="p")
            assert client.frame().command == "CONNECTED"
            client.ask("SUBSCRIBE", id="1", destination="/queue/a")
            client.ask("SEND", b"x" * 300_000, destination="/queue/a")
            assert len(client.message().body) == 300_000
            client.ask("DISCONNECT")
            assert client.ended()


def _certificates(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "embedded broker under test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = directory / "server.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return ssl.create_default_context(cafile=str(pem)), server
