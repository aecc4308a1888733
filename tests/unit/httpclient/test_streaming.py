"""A large body is handed over in pieces; what its taker refuses ends the exchange."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploykit.errors import MirrorError
from deploykit.httpclient.exchange import HttpServer, exchange
from deploykit.httpclient.reply import HttpReply, HttpRequest, NoReply
from tests.support.stubhttp import Fault, Reply, Seen, StubServer

BODY = bytes(range(256)) * 4096
GET = HttpRequest(method="GET", target="/object")


class Site:
    """Answers with one body, or with a fault."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.sent_bytes = 0
        self.faults: list[Fault] = []
        self.status = 200

    def reply(self, seen: Seen) -> Reply:
        return Reply(status=self.status, body=BODY)

    def take_fault(self, seen: Seen) -> Fault | None:
        return self.faults.pop() if self.faults else None


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def server(site: Site) -> Iterator[HttpServer]:
    from threading import Thread

    stub = StubServer(0, site)
    thread = Thread(target=stub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield HttpServer.of(f"http://127.0.0.1:{stub.server_address[1]}", ca_file=None, connect_timeout=30)
    stub.end()
    thread.join()


def test_the_pieces_are_the_whole_body_and_none_of_it_is_kept(server: HttpServer) -> None:
    pieces: list[bytes] = []
    reply = exchange(server, GET, seconds=60, sink=pieces.append)
    assert isinstance(reply, HttpReply)
    assert (b"".join(pieces), reply.body, reply.whole) == (BODY, b"", True)


def test_the_body_of_another_status_is_no_piece(server: HttpServer, site: Site) -> None:
    site.status = 404
    pieces: list[bytes] = []
    reply = exchange(server, GET, seconds=60, kept=10, sink=pieces.append)
    assert isinstance(reply, HttpReply)
    assert (pieces, reply.body, reply.whole) == ([], BODY[:10], False)


def test_a_body_that_breaks_off_is_not_whole(server: HttpServer, site: Site) -> None:
    site.faults = [Fault(kind="middle")]
    pieces: list[bytes] = []
    reply = exchange(server, GET, seconds=60, sink=pieces.append)
    assert isinstance(reply, HttpReply)
    assert (b"".join(pieces), reply.whole) == (BODY, False)


@pytest.mark.parametrize("error", [MirrorError("too much"), OSError("no space left")])
def test_what_the_taker_raises_ends_it_and_is_raised(server: HttpServer, site: Site, error: Exception) -> None:
    site.faults = [Fault(kind="huge")]

    def refuse(piece: bytes) -> None:
        raise error

    with pytest.raises(type(error)):
        exchange(server, GET, seconds=60, sink=refuse)
    assert site.sent_bytes < 100 << 20


def test_a_silence_ends_it_before_the_whole_time_is_over(server: HttpServer, site: Site) -> None:
    site.faults = [Fault(kind="never")]
    reply = exchange(server, GET, seconds=3600, stall=0.05)
    assert isinstance(reply, NoReply)
    assert "0.05 s" in reply.why
