"""Where the embedded broker listens, what it says when it cannot, and TLS."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.errors import UsageError
from tests.support.raw_stomp import RawStomp


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


def _client(broker: EmbeddedBroker, version: str = "1.2", **headers: str) -> RawStomp:
    return RawStomp.connected(broker.port, version, **headers)


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


def test_the_port_of_a_broker_that_is_down_is_given_to_nobody_else(broker: EmbeddedBroker) -> None:
    broker.kill()
    with socket.socket() as other, pytest.raises(OSError) as caught:
        other.bind(("127.0.0.1", broker.port))
    assert caught.value.errno == errno.EADDRINUSE
    with pytest.raises(ConnectionRefusedError):
        RawStomp(broker.port)
    broker.start()
    with _client(broker):
        pass


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
