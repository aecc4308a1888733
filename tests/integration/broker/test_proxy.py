"""The fault proxy before brokers: the embedded one, RabbitMQ and ActiveMQ show a client the same."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from attrs import frozen

from deploykit.broker.server import EmbeddedBroker
from deploykit.testing.proxy import FaultProxy
from tests.support.raw_stomp import RawStomp


@frozen(kw_only=True)
class _Server:
    port: int
    login: str
    passcode: str

    def connect(self, port: int) -> RawStomp:
        return RawStomp.connected(port, login=self.login, passcode=self.passcode, host="/")


@pytest.fixture(
    params=[
        "embedded",
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
        pytest.param("activemq", marks=pytest.mark.activemq),
    ]
)
def server(request: pytest.FixtureRequest) -> Iterator[_Server]:
    if request.param == "embedded":
        with EmbeddedBroker(users={"user": "pass"}) as broker:
            yield _Server(port=broker.port, login="user", passcode="pass")
    else:
        real = request.getfixturevalue(request.param)
        yield _Server(port=real.port, login=real.login, passcode=real.passcode)


@pytest.fixture
def proxy(server: _Server) -> Iterator[FaultProxy]:
    with FaultProxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def destination() -> str:
    return f"/queue/proxy-{secrets.token_hex(4)}"


def test_frames_may_come_byte_by_byte(server: _Server, proxy: FaultProxy, destination: str) -> None:
    proxy.slices(1, pause=0.0005)
    with server.connect(proxy.port) as client:
        client.ask("SEND", b"body\0with NUL", destination=destination, x="a:b\n")
        client.ask("SUBSCRIBE", id="1", destination=destination)
        message = client.message()
    assert (message.body, message.headers["x"]) == (b"body\0with NUL", "a:b\n")


def test_a_frame_cut_in_the_middle_leaves_nothing_behind(server: _Server, proxy: FaultProxy, destination: str) -> None:
    with server.connect(proxy.port) as client:
        proxy.cut_after(100, now=True)
        client.send("SEND", b"x" * 1000, destination=destination, receipt="never")
        with pytest.raises(ConnectionError):
            client.frame()
    with server.connect(server.port) as client:
        client.ask("SEND", b"whole", destination=destination)
        client.ask("SUBSCRIBE", id="1", destination=destination)
        assert client.message().body == b"whole"
        assert client.silent()


def test_a_black_hole_only_delays_the_receipt(server: _Server, proxy: FaultProxy, destination: str) -> None:
    with server.connect(proxy.port) as client:
        proxy.black_hole()
        client.send("SEND", destination=destination, receipt="late")
        assert client.silent(0.3)
        proxy.black_hole(False)
        assert client.frame().headers["receipt-id"] == "late"


def test_a_half_open_connection_gives_its_messages_to_the_next(
    server: _Server, proxy: FaultProxy, destination: str
) -> None:
    with server.connect(proxy.port) as client, server.connect(server.port) as other:
        client.ask("SUBSCRIBE", id="1", destination=destination, ack="client-individual")
        client.ask("SEND", b"x", destination=destination)
        client.message()
        assert proxy.half_open() == 1
        other.ask("SUBSCRIBE", id="1", destination=destination, ack="client-individual")
        again = other.message()
        assert again.headers["redelivered"] == "true"
        other.ack(again)
        assert client.silent()
