"""The event stream over real HTTP: replay, reset, comments, slow readers, floods, and the end of the console."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from starlette.types import Message

from deploykit.web.live.broadcast import Broadcast, StreamLimits
from deploykit.web.live.events import EventRing
from deploykit.web.login.lasting import AnswerEnded
from deploykit.web.server import WebServer
from deploykit.web.viewer import EVERYBODY, RoleGrant, Viewer
from tests.support.consoleserver import StreamClient, address_of, api_alone, serving
from tests.support.fixedqueries import FixedQueries
from tests.support.wait import wait_until

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class World:
    """A console that serves streams, within limits of the test's choice."""

    def __init__(self, server: WebServer, ring: EventRing, app_state: object) -> None:
        self.server = server
        self.address = address_of(server)
        self.ring = ring
        self._state = app_state
        self.clients: list[StreamClient] = []

    def ask(self, query: str = "", **headers: str) -> StreamClient:
        self.clients.append(StreamClient(self.address, query, **headers))
        return self.clients[-1]

    def open(self, query: str = "", **headers: str) -> StreamClient:
        client = self.ask(query, **headers)
        client.read_until(b"retry: ")
        client.read_until(b"\nid: ")
        return client

    @property
    def readers(self) -> int:
        broadcast = getattr(self._state, "broadcast", None)
        return len(broadcast) if isinstance(broadcast, Broadcast) else 0


@contextmanager
def world(limits: StreamLimits | None = None, viewer: Viewer = EVERYBODY) -> Iterator[World]:
    ring = EventRing(1000)
    app = api_alone(FixedQueries(), ring, viewer, limits)
    with serving(app, on_ending=ring.close) as server:
        here = World(server, ring, app.state)
        try:
            yield here
        finally:
            for client in here.clients:
                client.close()


def test_a_browser_gets_what_happens_and_after_a_break_what_it_missed() -> None:
    with world() as here:
        client = here.open()
        here.ring.add("deploy", NOON, site="shop", data={"text": "first"})
        client.read_until(b"first")
        client.close()
        wait_until(lambda: here.readers == 0, "the console noticed that the browser is gone")
        here.ring.add("deploy", NOON, site="shop", data={"text": "second"})
        again = here.open(Last_Event_ID="1000")
        received = again.read_until(b"second")
        assert b"first" not in received
        assert b"id: 1001\nevent: deploy\ndata: " in received
        assert b"reset" not in received


def test_a_page_gives_the_number_it_was_drawn_at() -> None:
    with world() as here:
        drawn_at = here.ring.newest
        here.ring.add("deploy", NOON, site="shop", data={"text": "between"})
        here.open(f"?after={drawn_at}").read_until(b"between")


@pytest.mark.parametrize("number", ["1", "x", "99999999999999999999", "-1"])
def test_a_browser_that_was_away_too_long_or_sends_nonsense_gets_a_reset(number: str) -> None:
    with world() as here:
        here.ring.add("deploy", NOON, site="shop")
        here.open(Last_Event_ID=number).read_until(b"id: 1000\nevent: reset\n")


def test_the_headers_keep_proxies_and_caches_from_holding_it_back() -> None:
    with world() as here:
        head = here.open().received.partition(b"\r\n\r\n")[0].lower()
        assert b"content-type: text/event-stream" in head
        assert b"x-accel-buffering: no" in head
        assert b"cache-control: no-store" in head
        assert b"access-control" not in head


def test_a_silent_stream_gets_comments_that_carry_the_number() -> None:
    with world(StreamLimits(silence=0.05, sweep=0.02)) as here:
        client = here.open("?site=quiet")
        here.ring.add("deploy", NOON, site="shop", data={"text": "of another site"})
        received = client.read_until(b": \nid: 1000\n\n")
        assert b"of another site" not in received


def test_a_stream_ends_after_its_time_so_that_rights_are_looked_at_again() -> None:
    with world(StreamLimits(lasts=0.1, sweep=0.02)) as here:
        assert here.open().read_to_end().endswith(b"0\r\n\r\n")


def test_the_end_of_the_console_ends_all_streams_at_once() -> None:
    with world() as here:
        clients = [here.open() for _ in range(20)]
        began = time.monotonic()
        here.ring.close()
        for client in clients:
            assert client.read_to_end().endswith(b"0\r\n\r\n")
        assert time.monotonic() - began < 20
        late = here.ask()
        assert b"503" in late.read_until(b"application/problem+json")


def test_the_server_ends_in_time_with_streams_open_that_nobody_reads() -> None:
    with world() as here:
        clients = [here.open() for _ in range(10)]
        for _ in range(500):
            here.ring.add("log", NOON, site="shop", data={"text": "x" * 15_000})
        clients[0].read_until(b"id: 1400\n")
        ending = time.monotonic()
        here.server.close()
        assert time.monotonic() - ending < 20


def test_a_reader_that_does_not_read_is_cut_and_the_others_get_all(caplog: pytest.LogCaptureFixture) -> None:
    with world(StreamLimits(behind=300, sweep=0.05)) as here:
        slow, quick = here.open(), here.open()
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        began, round_ = time.monotonic(), 0
        while time.monotonic() < began + 20:  # after 30 s the kernel drops it
            round_ += 1
            for _ in range(25):
                here.ring.add("log", NOON, site="shop", data={"text": "x" * 8000})
            mark = f"mark {round_} end"
            here.ring.add("log", NOON, site="shop", data={"text": mark})
            quick.read_until(mark.encode())
            if here.readers == 1:
                break
        assert here.readers == 1
        wait_until(lambda: here.server.connections == 1, "its connection was dropped")
        assert caplog.text == "", "a slow browser is no error of the console"
        assert b"event: reset" not in quick.received
        assert quick.received.count(b"event: log") == here.ring.newest - 999


def test_a_flood_of_streams_is_refused_with_a_way_out() -> None:
    with world(StreamLimits(readers=50, of_one=3)) as here:
        kept = [here.open() for _ in range(3)]
        refused = here.ask().read_until(b"too many event streams")
        assert refused.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 60" in refused.lower()
        kept.pop().close()
        wait_until(lambda: here.readers == 2, "a place is free")
        here.open()


def test_events_are_those_that_the_viewer_may_see() -> None:
    ann = Viewer(name="ann", grants=(RoleGrant(sites="shop*", role="look"),))
    with world(viewer=ann) as here:
        client = here.open()
        here.ring.add("deploy", NOON, site="vault", data={"text": "hidden"})
        here.ring.add("deploy", NOON, site="shop", data={"text": "shown"})
        assert b"hidden" not in client.read_until(b"shown")


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?topics=nonsense", 422),
        ("?sites=shop", 422),
        ("?after=x", 422),
        ("?site=%00", 422),
        ("?topics=log&topics=log", 422),
    ],
)
def test_a_wrong_parameter_is_named(query: str, status: int) -> None:
    with world() as here:
        answer = here.ask(query).read_until(b"}]}")
        assert answer.startswith(b"HTTP/1.1 422")
        assert b"application/problem+json" in answer


def test_nobody_without_rights_gets_a_stream() -> None:
    with world(viewer=Viewer(name="eve")) as here:
        assert here.ask().read_until(b"problem+json").startswith(b"HTTP/1.1 403")


def test_what_the_middleware_around_it_raises_ends_the_stream_as_it_is() -> None:
    ring = EventRing(1000)
    app = api_alone(FixedQueries(), ring)

    async def tried() -> int:
        async def send(message: Message) -> None:
            if message.get("body"):
                raise AnswerEnded

        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/api/v1/events",
            "root_path": "",
            "query_string": b"",
            "headers": [],
        }
        with pytest.raises(AnswerEnded):
            await app(scope, receive, send)
        return len(app.state.broadcast)

    assert asyncio.run(tried()) == 0, "it is not counted any more"
