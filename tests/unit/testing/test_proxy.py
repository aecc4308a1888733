"""The TCP fault proxy, before a server that echoes and one that only listens."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.errors import UsageError
from deploykit.testing.proxy import FaultProxy
from deploykit.testing.proxy_link import slices
from tests.support.bus import in_time
from tests.support.wait import wait_until


class _Echo:
    """Sends back what it gets; keeps what it got and how each connection ended."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.ends: list[str] = []
        self.connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            while data := connection.recv(65536):
                self.got += data
                connection.sendall(data)
            self.ends.append("end")
        except OSError as error:
            self.ends.append(type(error).__name__)
        finally:
            connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.connections:
            with contextlib.suppress(OSError):  # closed, or reset by the other side
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(60)


@pytest.fixture
def echo() -> Iterator[_Echo]:
    echo = _Echo()
    yield echo
    echo.close()


@pytest.fixture
def proxy(echo: _Echo) -> Iterator[FaultProxy]:
    with FaultProxy(echo.port) as proxy:
        yield proxy


def _dial(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=60)


def _exactly(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = client.recv(count - len(data))
        if not piece:
            break
        data += piece
    return data


def _send_all(client: socket.socket, data: bytes) -> None:
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)


def _until_reset(client: socket.socket) -> bytes:
    """Return what comes before the connection is reset, which it must be."""
    data = b""
    while True:
        try:
            piece = client.recv(100)
        except ConnectionError:
            return data
        assert piece, "an orderly end instead of a reset"
        data += piece


def _trip(client: socket.socket, data: bytes = b"ping") -> float:
    start = time.monotonic()
    client.sendall(data)
    assert _exactly(client, len(data)) == data
    return time.monotonic() - start


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[socket.socket]:
    with _dial(proxy) as client:
        _trip(client)
        yield client


def test_without_a_fault_everything_passes_and_ends_in_order(echo: _Echo, proxy: FaultProxy) -> None:
    data = bytes(range(256)) * 8000
    with _dial(proxy) as client:
        sender = threading.Thread(target=_send_all, args=(client, data))
        sender.start()
        assert _exactly(client, len(data)) == data
        assert client.recv(1) == b"", "the end passes on as well"
        sender.join()
    wait_until(lambda: echo.ends == ["end"])
    wait_until(lambda: proxy.stats().open == 0)
    stats = proxy.stats()
    assert (stats.accepted, stats.up, stats.down) == (1, len(data), len(data))


def test_latency_delays_each_way_and_does_not_add_up_over_bytes_under_way(
    proxy: FaultProxy, client: socket.socket
) -> None:
    proxy.latency(0.4)
    assert _trip(client) >= 0.8
    proxy.latency(0.4, direction="up")
    proxy.latency(0, direction="down")

    def many() -> float:
        took = _trip(client, b"x" * 500_000)
        assert took >= 0.4
        return took

    in_time(3, many)
    proxy.latency(0)
    in_time(0.4, lambda: _trip(client))


def test_jitter_never_reorders(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.latency(0.02, jitter=0.02)
    sent = b"".join(bytes([n]) for n in range(100))
    for n in range(100):
        client.sendall(bytes([n]))
    assert _exactly(client, 100) == sent


def test_bandwidth_is_kept(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.bandwidth(50_000, direction="down")
    assert 0.8 <= _trip(client, b"x" * 50_000) < 50
    proxy.bandwidth(None)
    in_time(0.8, lambda: _trip(client, b"x" * 50_000))


def test_a_sender_is_pushed_back_when_nothing_passes(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.bandwidth(1000)
    client.settimeout(0.5)
    with pytest.raises(TimeoutError):
        client.sendall(b"x" * 64_000_000)


def test_slices_arrive_one_by_one(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.slices(3, pause=0.1, direction="down")
    came: list[list[bytes]] = []
    for _ in range(5):  # a reader that is late finds two of them joined
        client.sendall(b"abcdefgh")
        came.append([])
        while sum(map(len, came[-1])) < 8:
            came[-1].append(client.recv(100))
    assert [b"abc", b"def", b"gh"] in came


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_black_hole_holds_back_and_loses_nothing(proxy: FaultProxy, client: socket.socket, direction: str) -> None:
    proxy.black_hole(direction="up" if direction == "up" else "down")
    client.sendall(b"late")
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(10)
    proxy.black_hole(False)
    client.settimeout(60)
    assert _exactly(client, 4) == b"late"


def test_a_black_hole_hides_the_end_of_a_connection(echo: _Echo, proxy: FaultProxy, client: socket.socket) -> None:
    proxy.black_hole()
    echo.connections[0].shutdown(socket.SHUT_RDWR)
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(10)
    proxy.black_hole(False)
    client.settimeout(60)
    assert client.recv(10) == b""


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("count", [1, 7])
def test_a_cut_passes_exactly_so_many_bytes_and_resets(
    echo: _Echo, proxy: FaultProxy, client: socket.socket, direction: str, count: int
) -> None:
    del echo.got[:]
    proxy.cut_after(count, direction="up" if direction == "up" else "down", now=True)
    client.sendall(b"0123456789")
    received = _until_reset(client)
    if direction == "up":
        wait_until(lambda: echo.ends == ["ConnectionResetError"])
        assert bytes(echo.got) == b"0123456789"[:count]
    else:
        assert received == b"0123456789"[:count]


def test_a_cut_may_be_planned_for_the_next_connection_alone(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.cut_after(3)
    _trip(client, b"unharmed")
    with _dial(proxy) as second:
        second.sendall(b"0123456789")
        _until_reset(second)
    with _dial(proxy) as third:
        _trip(third, b"unharmed too")


def test_reset_is_seen_as_a_reset_on_both_sides(echo: _Echo, proxy: FaultProxy, client: socket.socket) -> None:
    assert proxy.reset() == 1
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    wait_until(lambda: echo.ends == ["ConnectionResetError"])


def test_drop_is_seen_as_an_orderly_end(echo: _Echo, proxy: FaultProxy, client: socket.socket) -> None:
    assert proxy.drop() == 1
    assert client.recv(1) == b""
    wait_until(lambda: echo.ends == ["end"])


def test_half_open_leaves_the_client_in_the_dark_while_new_connections_work(
    echo: _Echo, proxy: FaultProxy, client: socket.socket
) -> None:
    assert proxy.half_open() == 1
    wait_until(lambda: echo.ends == ["ConnectionResetError"])
    client.sendall(b"into the void")
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(1)
    with _dial(proxy) as second:
        _trip(second)
    client.close()
    wait_until(lambda: proxy.stats().open == 0)


def test_half_open_the_other_way_leaves_the_broker_in_the_dark(
    echo: _Echo, proxy: FaultProxy, client: socket.socket
) -> None:
    proxy.half_open(alive="broker")
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    time.sleep(0.1)
    assert echo.ends == []


def test_an_idle_connection_is_forgotten_and_a_busy_one_is_not(proxy: FaultProxy, client: socket.socket) -> None:
    with _dial(proxy) as busy:
        proxy.forget_idle(2.0)
        until = time.monotonic() + 3.0
        while time.monotonic() < until:
            _trip(busy)
            time.sleep(0.05)
        client.sendall(b"anybody?")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_refuse_closes_the_port_and_opens_the_same_again(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        _dial(proxy)
    _trip(client)
    proxy.refuse(False)
    with _dial(proxy) as second:
        _trip(second)


def test_a_broker_that_is_away_is_a_reset_and_its_return_is_noticed(echo: _Echo, proxy: FaultProxy) -> None:
    with socket.socket() as nobody:  # taken, and never listened on
        nobody.bind(("127.0.0.1", 0))
        proxy.retarget(nobody.getsockname()[1])
        with pytest.raises(ConnectionError), _dial(proxy) as client:  # the reset may be there before we look
            client.recv(1)
    proxy.retarget(echo.port)
    with _dial(proxy) as client:
        _trip(client)


def test_clear_ends_every_condition(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.latency(5)
    proxy.bandwidth(1)
    proxy.slices(1, pause=5)
    proxy.black_hole()
    proxy.forget_idle(60)
    proxy.cut_after(1)
    proxy.refuse()
    proxy.clear()
    _trip(client)
    with _dial(proxy) as second:
        in_time(5, lambda: _trip(second, b"x" * 10_000))


def test_conditions_may_be_set_before_the_start(echo: _Echo) -> None:
    proxy = FaultProxy(echo.port)
    proxy.latency(0.1)
    with proxy, _dial(proxy) as client:
        assert _trip(client) >= 0.2


def test_it_listens_on_loopback_and_says_what_is_wrong_with_a_port(proxy: FaultProxy) -> None:
    with pytest.raises(UsageError, match="can be reached by others"):
        FaultProxy(1, host="0.0.0.0")
    with pytest.raises(UsageError, match=f"port {proxy.port} .* is in use"):
        FaultProxy(1, port=proxy.port).start()
    with pytest.raises(UsageError, match="does not run"):
        FaultProxy(1).reset()


@given(data=st.binary(max_size=50), size=st.none() | st.integers(min_value=1, max_value=60))
def test_slices_lose_nothing_and_keep_their_size(data: bytes, size: int | None) -> None:
    pieces = list(slices(data, size))
    assert b"".join(pieces) == data
    assert all(0 < len(piece) <= (size or 50) for piece in pieces if data)
