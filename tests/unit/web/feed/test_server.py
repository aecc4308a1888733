"""The server over real sockets: where it listens, what it refuses, and that its end does not wait for streams."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from deploykit.errors import UsageError, WebError
from deploykit.settings.service import ListenAddress, parse_listen_address
from deploykit.web.listener import SharedListener
from deploykit.web.server import ServerLimits, WebServer
from tests.support.wait import wait_until

ANY_PORT = parse_listen_address("127.0.0.1:0")


def peer_of(request: Request) -> Response:
    """Answer who asks, as the server knows it."""
    host = request.client.host if request.client is not None else "unix"
    return PlainTextResponse(f"{host} {request.url.scheme}")


async def stream(_: Request) -> Response:
    """Answer with a stream that never ends."""

    async def blocks() -> object:
        while True:
            yield b": still here\n\n"
            await asyncio.sleep(30)

    return StreamingResponse(blocks(), media_type="text/event-stream")  # type: ignore[arg-type]  # an async generator


async def length(request: Request) -> Response:
    """Answer how long the body is."""
    return PlainTextResponse(str(len(await request.body())))


class Slow:
    """A view that answers once it may."""

    def __init__(self) -> None:
        self.begun, self.may_answer = threading.Event(), threading.Event()

    def answer(self, _: Request) -> Response:
        self.begun.set()
        self.may_answer.wait(60)
        return PlainTextResponse("done")


def application(*more: Route) -> Starlette:
    routes = [Route("/", peer_of), Route("/stream", stream), Route("/length", length, methods=["POST"]), *more]
    return Starlette(routes=routes)


def listening(address: ListenAddress = ANY_PORT) -> SharedListener:
    return SharedListener(address, setting="[web] listen")


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer(application(), listening()) as made:
        yield made


def port_of(server: WebServer) -> int:
    return int(server.url.rstrip("/").rpartition(":")[2])


def test_it_serves_at_a_free_port_and_says_where(server: WebServer) -> None:
    answer = httpx.get(server.url, timeout=60)
    assert answer.text == "127.0.0.1 http"
    assert "server" not in answer.headers
    assert server.failure == ""


def test_what_a_peer_says_of_itself_counts_for_nothing(server: WebServer) -> None:
    forged = {"X-Forwarded-For": "10.9.9.9", "X-Forwarded-Proto": "https", "Forwarded": "for=10.9.9.9;proto=https"}
    assert httpx.get(server.url, headers=forged, timeout=60).text == "127.0.0.1 http"


def test_it_serves_at_an_ipv6_address() -> None:
    with WebServer(application(), listening(parse_listen_address("[::1]:0"))) as server:
        assert server.url.startswith("http://[::1]:")
        assert httpx.get(server.url, timeout=60).text == "::1 http"


def test_an_ipv4_peer_of_an_ipv6_socket_is_known_by_its_ipv4_address() -> None:
    with WebServer(application(), listening(parse_listen_address("[::]:0"))) as server:
        assert httpx.get(f"http://127.0.0.1:{port_of(server)}/", timeout=60).text == "127.0.0.1 http"


def test_it_serves_at_a_unix_socket_that_only_its_group_may_use(tmp_path: Path) -> None:
    path = tmp_path / "web.socket"
    with WebServer(application(), listening(parse_listen_address(f"unix:{path}"))) as server:
        assert server.url == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            assert client.get("http://console/").text == "unix http"
    assert not path.exists()


def test_a_port_that_is_taken_is_an_error_that_names_the_setting() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = ListenAddress(host="127.0.0.1", port=taken.getsockname()[1])
        with pytest.raises(UsageError, match=r"\[web\] listen: port .* is in use"):
            listening(address)


def test_its_end_waits_for_none_of_a_hundred_streams(server: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    open_streams = [socket.create_connection(("127.0.0.1", port_of(server)), timeout=30) for _ in range(100)]
    for one in open_streams:
        one.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    for one in open_streams:
        wait_for_text(one, b"still here")
    begun = time.monotonic()
    server.close()
    assert time.monotonic() - begun < 20  # a stream has no end of its own
    for one in open_streams:
        with closing(one):
            assert one.recv(1000) == b"", "a stream was not ended"
    assert caplog.text == "", "streams are ended, not cut off"


def test_its_end_finishes_an_answer_that_is_being_made() -> None:
    slow, answers = Slow(), []
    server = WebServer(application(Route("/slow", slow.answer)), listening())
    with server:
        asking = threading.Thread(target=lambda: answers.append(httpx.get(f"{server.url}slow", timeout=30).text))
        asking.start()
        assert slow.begun.wait(30)
        threading.Timer(0.3, slow.may_answer.set).start()
    asking.join(30)
    assert answers == ["done"]


def test_its_end_answers_the_first_request_of_a_connection_that_was_just_made() -> None:
    server = WebServer(application(), listening())
    server.start()
    with closing(socket.create_connection(("127.0.0.1", port_of(server)))) as peer:
        wait_until(lambda: server.connections == 1, "the connection is taken")
        end = threading.Thread(target=server.close)
        end.start()
        wait_until(lambda: server._server.should_exit, "the end has begun")
        wait_until(lambda: not any(each.is_serving() for each in server._server.servers), "no new connections")
        peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = read_to_end(peer)
        end.join(60)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert not end.is_alive()  # nor does it wait for more


def test_its_end_leaves_a_view_behind_that_hangs() -> None:
    slow = Slow()
    server = WebServer(application(Route("/slow", slow.answer)), listening())
    server.start()
    with closing(socket.create_connection(("127.0.0.1", port_of(server)))) as asking:
        asking.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert slow.begun.wait(30)
        begun = time.monotonic()
        server.close()
        assert time.monotonic() - begun < 30  # and not until the view answers
        assert b" 500 " in read_to_end(asking)
        slow.may_answer.set()
        wait_until(lambda: not any(one.name == "deploykit-http" for one in threading.enumerate()))


def test_what_holds_up_answers_is_woken_before_they_are_waited_for() -> None:
    slow = Slow()
    server = WebServer(application(Route("/slow", slow.answer)), listening(), on_ending=slow.may_answer.set)
    with server, closing(socket.create_connection(("127.0.0.1", port_of(server)))) as asking:
        asking.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert slow.begun.wait(30)
        server.close()
        assert wait_for_text(asking, b"done")


def test_a_request_that_does_not_arrive_in_time_is_dropped() -> None:
    parts = [b"", b"GET / HT", b"POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345"]
    with WebServer(application(), listening(), limits=ServerLimits(arrival=0.3)) as server:
        for part in parts:
            with closing(socket.create_connection(("127.0.0.1", port_of(server)), timeout=30)) as slow:
                slow.sendall(part)
                assert read_to_end(slow) == b"", part


def test_a_request_that_trickles_in_is_dropped_all_the_same() -> None:
    with (
        WebServer(application(), listening(), limits=ServerLimits(arrival=0.3)) as server,
        closing(socket.create_connection(("127.0.0.1", port_of(server)), timeout=30)) as slow,
    ):
        end = time.monotonic() + 60
        dropped = False
        while not dropped and time.monotonic() < end:
            try:
                slow.sendall(b"X")
            except OSError:
                dropped = True
            time.sleep(0.02)  # this is the trickle, not a wait for anything
        assert dropped


def test_a_stream_outlives_the_deadline_of_requests() -> None:
    with (
        WebServer(application(), listening(), limits=ServerLimits(arrival=2.0)) as server,
        closing(socket.create_connection(("127.0.0.1", port_of(server)), timeout=30)) as reader,
    ):
        reader.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert wait_for_text(reader, b"still here")
        reader.settimeout(2.5)  # longer than a request may take, which a busy machine must send in that time
        with pytest.raises(TimeoutError):
            reader.recv(1)


def test_a_head_that_is_too_long_is_refused(server: WebServer) -> None:
    answer = httpx.get(server.url, headers={"X-Long": "x" * (64 << 10)}, timeout=60)
    assert answer.status_code == 400


def test_more_connections_than_allowed_are_refused_and_then_dropped(caplog: pytest.LogCaptureFixture) -> None:
    with WebServer(application(), listening(), limits=ServerLimits(connections=8)) as server:
        taken = [socket.create_connection(("127.0.0.1", port_of(server)), timeout=30) for _ in range(7)]
        wait_until(lambda: server.connections == 7)
        for _ in range(3):
            refused = httpx.get(server.url, timeout=60)
            assert (refused.status_code, refused.headers["content-type"]) == (503, "application/problem+json")
            assert int(refused.headers["retry-after"]) > 0
            wait_until(lambda: server.connections == 7)
        assert caplog.text.count("at most 8 are served: 1 refused") == 1
        taken += [socket.create_connection(("127.0.0.1", port_of(server)), timeout=30) for _ in range(3)]
        wait_until(lambda: server.connections == 10)
        with closing(socket.create_connection(("127.0.0.1", port_of(server)), timeout=30)) as too_many:
            assert read_to_end(too_many) == b""
        for one in taken:
            one.close()


def test_malformed_requests_write_no_lines_into_the_log(server: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for garbage in (
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ):
        with closing(socket.create_connection(("127.0.0.1", port_of(server)), timeout=30)) as peer:
            peer.sendall(garbage)
            assert b"HTTP/1.1 400" in peer.recv(1000)
    assert caplog.text == ""


def test_an_application_that_does_not_start_is_an_error() -> None:
    async def fails(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RuntimeError("no disk")

    with pytest.raises(WebError, match="cannot serve at http"):
        WebServer(fails, listening()).start()


def test_a_socket_outlives_the_server_that_is_replaced() -> None:
    first = WebServer(application(), listening(), on_ending=lambda: None)
    first.start()
    address = parse_listen_address(f"127.0.0.1:{port_of(first)}")
    first.close()
    second = WebServer(application(), listening(address))
    with second:
        third = WebServer(application(), listening(address))  # as after HUP: made before the one before ends
        second.close()
        with closing(socket.create_connection(("127.0.0.1", port_of(third)), timeout=30)) as waiting:
            waiting.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            with third:
                assert b"127.0.0.1 http" in read_to_end(waiting)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", address.port))


def test_a_share_that_is_forgotten_does_not_keep_the_socket_open() -> None:
    held = listening()
    port = held.address.port
    del held
    gc.collect()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def wait_for_text(peer: socket.socket, text: bytes) -> bool:
    got = b""
    while text not in got:
        part = peer.recv(4096)
        assert part, f"closed after {got!r}"
        got += part
    return True


def read_to_end(peer: socket.socket) -> bytes:
    got = b""
    try:
        while part := peer.recv(4096):
            got += part
    except ConnectionResetError:
        pass
    return got


def test_an_answer_is_sent_at_once_and_waits_for_no_acknowledgement(server: WebServer) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        client.get("/")
        (connection,) = server._server.server_state.connections
        peer = connection.transport.get_extra_info("socket")
        assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
