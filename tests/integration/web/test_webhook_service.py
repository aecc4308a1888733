"""`deploykit webhook` as a process: what forges send over TCP lands on a real broker; HUP, TERM and a broker away."""

from __future__ import annotations

import gzip
import re
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.messages import RefUpdated
from tests.brokers.rabbitmq import RabbitMQ
from tests.support.bus import Collector, fast
from tests.support.daemon import RunningDaemon
from tests.support.forges import FORGES, NEW, OLD, ForgedChange, ForgedRequest, signed
from tests.support.rawhttp import exchange, read_answer, request_head, status_of
from tests.support.wait import wait_until
from tests.support.webhooks import OURS, SECRETS, push_of, source_tables

TOPIC = "/topic/deploykit.source"
#: Whole requests arrive in this time, 26 MB of one among them, also on a busy machine.
DEADLINE = 60.0


def listen(deadline: float = DEADLINE) -> str:
    """Return the settings of a receiver on a free port."""
    return f'[webhook]\nlisten = "127.0.0.1:0"\ndeadline = {deadline}\n'


class Receiver(RunningDaemon):
    """The daemon with a source of each forge."""

    def __init__(self, root: Path, address: str, *words: str, deadline: float = DEADLINE) -> None:
        super().__init__(root, address, *(words or ("webhook",)))
        self.write(address, listen(deadline) + source_tables(root))

    @property
    def port(self) -> int:
        """Where it listens, once it does."""
        self.wait("ready: webhook receiver at ")
        found = re.search(r"receiver at http://127\.0\.0\.1:(\d+)/", self.log.read_text())
        assert found is not None
        return int(found[1])

    def send(self, forge: str, request: ForgedRequest) -> httpx.Response:
        """Send a request to a source."""
        url = f"http://127.0.0.1:{self.port}/hook/{forge}"
        return httpx.post(url, headers=request.headers, content=request.body, timeout=30)


@pytest.fixture
def receiver(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[Receiver]:
    with Receiver(tmp_path, deploykit_broker.address) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """One daemon for tests that leave it as it was."""
    with EmbeddedBroker() as broker, Receiver(tmp_path_factory.mktemp("shared"), broker.address) as daemon:
        yield daemon


def fresh(forge: str = "github") -> ForgedRequest:
    """Return a push that was not sent before."""
    name = uuid.uuid4().hex
    return push_of(forge, delivery=name, changes=[ForgedChange(f"refs/heads/{name}", OLD, NEW)])


@pytest.mark.rabbitmq
def test_what_each_forge_pushes_lands_on_the_bus_field_by_field(tmp_path: Path, rabbitmq: RabbitMQ) -> None:
    heard = Collector()
    with Bus(fast(rabbitmq.address)) as bus, Receiver(tmp_path, rabbitmq.address) as receiver:
        subscription = bus.subscribe(TOPIC, heard)
        assert subscription.wait_active(30)
        for number, forge in enumerate(FORGES):
            request = push_of(forge, changes=[ForgedChange(f"refs/heads/of-{forge}", OLD, NEW)])
            assert receiver.send(forge, request).status_code == 202
            heard.wait(number + 1)
            assert receiver.send(forge, request).json()["result"] == "copy"
        messages = [delivery.message for delivery in heard.wait(len(FORGES))]
    for forge, message in zip(FORGES, messages, strict=True):
        assert isinstance(message, RefUpdated)
        shown = (message.repo, message.ref, message.old, message.new, message.forced, message.source)
        assert shown == (OURS, f"refs/heads/of-{forge}", OLD, NEW, False, f"webhook/{forge}")
    assert len({message.id for message in messages if message is not None}) == len(FORGES)


def test_with_the_broker_away_deliveries_are_taken_and_sent_when_it_is_back(tmp_path: Path) -> None:
    heard = Collector()
    broker = EmbeddedBroker()
    with broker:
        address = broker.address
    with Receiver(tmp_path, address) as receiver:
        assert receiver.send("github", push_of("github")).status_code == 202
        with broker, Bus(fast(address)) as bus:
            assert bus.subscribe(TOPIC, heard).wait_active(30)
            (delivery,) = heard.wait(1)
    assert delivery.message is not None


def test_hup_keeps_the_socket_and_a_new_source_is_served(receiver: Receiver) -> None:
    port = receiver.port
    text = receiver.file.read_text()
    receiver.file.write_text(text.replace("[webhook]", '[webhook]\nlisten = "nowhere"\nother = 1', 1))
    receiver.hup()
    receiver.wait("the old ones stay")
    assert receiver.send("github", push_of("github")).status_code == 202
    receiver.file.write_text(text.replace('forge = "gitea"', 'forge = "gitea"\npath = "/hook/new"', 1))
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        receiver.hup()
        receiver.wait("settings read again: webhook.sources")
        receiver.wait("ready: webhook receiver at ", 2)
        # A copy of what was taken before the reload is known after it.
        request = push_of("github")
        length = {"Content-Length": str(len(request.body))}
        again = exchange(port, [request_head("/hook/github", request.headers | length), request.body])
        assert b'"copy"' in again
        connection.close()
    request = push_of("gitea")
    length = {"Content-Length": str(len(request.body))}
    answer = exchange(port, [request_head("/hook/new", request.headers | length), request.body])
    assert status_of(answer) == 202


def test_term_ends_it_while_a_body_is_still_on_its_way(receiver: Receiver) -> None:
    head = request_head("/hook/github", {**push_of("github").headers, "Content-Length": "1000"})
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=30) as connection:
        connection.sendall(head + b"{")
        begun = time.monotonic()
        assert receiver.term() == 0
        assert time.monotonic() - begun < 60  # the rest of the body never comes
        assert status_of(read_answer(connection)) in (0, 408, 500, 503)


def test_run_serves_it_beside_an_agent_on_one_connection(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    with Receiver(tmp_path, deploykit_broker.address, "run", "agent", "webhook") as receiver:
        receiver.wait("ready: agent on web1")
        assert receiver.send("github", push_of("github")).status_code == 202
        assert deploykit_broker.stats().connections == 1


# -- what no client library sends --------------------------------------------------------------------------------------


def test_26_mb_are_refused_and_the_sender_reads_the_answer(shared: Receiver) -> None:
    headers = fresh().headers
    answer = shared.send("github", ForgedRequest(headers, b"x" * (26 << 20)))
    assert answer.status_code == 413
    assert answer.json()["status"] == 413
    chunk = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
    chunked = [request_head("/hook/github", {**headers, "Transfer-Encoding": "chunked"}), *[chunk] * 26, b"0\r\n\r\n"]
    assert status_of(exchange(shared.port, chunked)) == 413
    waiting = {**headers, "Content-Length": str(26 << 20), "Expect": "100-continue"}
    asked = exchange(shared.port, [request_head("/hook/github", waiting)])
    assert status_of(asked) == 413
    assert b"100 Continue" not in asked


def test_a_slow_body_is_given_up_and_others_are_served_meanwhile(
    tmp_path: Path, deploykit_broker: EmbeddedBroker
) -> None:
    request = fresh()
    head = request_head("/hook/github", {**request.headers, "Content-Length": str(len(request.body))})
    # Four seconds, all of which the slow one takes: the whole ones arrive in less on a busy machine, too.
    with Receiver(tmp_path, deploykit_broker.address, deadline=4.0) as receiver:
        with socket.create_connection(("127.0.0.1", receiver.port), timeout=60) as slow:
            slow.sendall(head + request.body[:10])
            assert receiver.send("gitea", fresh("gitea")).status_code == 202
            assert status_of(read_answer(slow)) == 408
        assert receiver.send("github", request).json()["result"] == "queued"


def test_a_chunked_body_is_taken_and_a_compressed_one_is_not(shared: Receiver) -> None:
    request = fresh()
    head = request_head("/hook/github", {**request.headers, "Transfer-Encoding": "chunked"})
    pieces = [b"%x\r\n%s\r\n" % (1, request.body[at : at + 1]) for at in range(len(request.body))]
    assert status_of(exchange(shared.port, [head, b"".join(pieces), b"0\r\n\r\n"])) == 202
    body = gzip.compress(request.body)
    headers = {**request.headers, **signed("github", body, SECRETS["github"]), "Content-Encoding": "gzip"}
    assert shared.send("github", ForgedRequest(headers, body)).status_code == 415


NO_REQUESTS = (
    b"GET / HTTP/9.9\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10,
    b"POST /hook/github HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /hook/github HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"POST /hook/github HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /hook/github HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    b"POST /hook/%00%ff%2e%2e HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
)


def test_what_is_no_request_makes_no_500_and_it_goes_on(shared: Receiver) -> None:
    for raw in NO_REQUESTS:
        assert status_of(exchange(shared.port, [raw])) in (0, 400, 404, 413, 415, 431), raw[:60]
    assert shared.send("github", fresh()).status_code == 202
    assert "Traceback" not in shared.log.read_text()


def test_it_shows_its_counters_and_that_it_is_ready(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    receiver = Receiver(tmp_path, deploykit_broker.address)
    pages = tmp_path / "pages.sock"
    receiver.write(
        deploykit_broker.address, f'[service]\nlisten = "unix:{pages}"\n{listen()}{source_tables(tmp_path, "github")}'
    )
    at_pages = httpx.Client(transport=httpx.HTTPTransport(uds=str(pages)), base_url="http://x", timeout=60)
    with receiver, at_pages as client:
        assert receiver.send("github", push_of("github", secret=b"wrong")).status_code == 401
        wait_until(lambda: client.get("/ready").status_code == 200, "ready")
        assert client.get("/ready").text == "ready\n"
        metrics = client.get("/metrics").text
        assert 'webhook_requests_total{result="unverified",source="github"} 1.0' in metrics
        assert 'webhook_requests_total{result="queued",source="github"} 0.0' in metrics
