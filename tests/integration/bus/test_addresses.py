"""A broker name with several addresses: they share an attempt's time and take turns, and errors say who did what."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.bus.events import Connected, ConnectFailed
from deploykit.bus.inspection import connection_of
from deploykit.errors import LoginRefused, OriginError
from deploykit.git.transport.remote import connect
from deploykit.mirror import Mirror
from deploykit.release import health
from deploykit.settings import MirrorSettings
from deploykit.system import hosts
from deploykit.system.deadline import Deadline
from tests.support import twoaddresses
from tests.support.bus import Events, fast, in_time, running, text
from tests.support.needs import needs_root
from tests.support.wait import wait_until

Names = Callable[..., None]


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(users={"ada": "s3cret"}, record=100) as embedded:
        yield embedded


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Say which addresses a name has, in this order."""
    known: dict[str, tuple[str, ...]] = {}

    def resolve(host: str, port: int, **_: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)

    def say(**addresses: tuple[str, ...]) -> None:
        known.update(addresses)

    return say


class Silent:
    """Accepts connections at one address and says nothing."""

    def __init__(self, address: str, port: int) -> None:
        self.listener = socket.create_server((address, port))
        self.accepted: list[socket.socket] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while self.listener.fileno() >= 0:
            try:
                self.accepted.append(self.listener.accept()[0])
            except OSError:
                return


@contextmanager
def silent(address: str, port: int) -> Iterator[Silent]:
    one = Silent(address, port)
    try:
        yield one
    finally:
        one.listener.shutdown(socket.SHUT_RDWR)
        one.listener.close()
        for sock in one.accepted:
            sock.close()


@contextmanager
def deaf(address: str, port: int) -> Iterator[None]:
    """Answer no SYN at one address: the queue of those who wait to be accepted is full."""
    with socket.socket() as listener:
        listener.bind((address, port))
        listener.listen(0)
        crowd = [socket.socket() for _ in range(4)]
        try:
            for sock in crowd:
                sock.setblocking(False)
                sock.connect_ex((address, port))
            yield
        finally:
            for sock in crowd:
                sock.close()


_MUTE_TLS: Final = ("mute", True, 9.0, "no TLS handshake in time")
_DROP: Final = ("drop", False, 2.0, "no connection in 0.3 s")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "fault", "tls", "limit", "said"),
    [
        ("embedded", *_DROP),
        ("embedded", *_MUTE_TLS),
        ("embedded", "mute-after-tls", True, 9.0, "connected, but no answer to CONNECT in time"),
        # What a dead address does is no matter of the broker at the other one: each real one is met once.
        pytest.param("rabbitmq", *_MUTE_TLS, marks=pytest.mark.rabbitmq),
        pytest.param("activemq", *_DROP, marks=pytest.mark.activemq),
    ],
)
@needs_root("to have a firewall and a hosts file of its own")
def test_a_name_whose_first_address_is_dead_serves_from_its_second(
    kind: str, fault: str, tls: bool, limit: float, said: str
) -> None:
    """For real: system resolver, firewall, broker. `connect_timeout` is 10 s, which the first address used to get."""
    last: list[twoaddresses.Outcome] = []

    def serve() -> float:
        last.append(twoaddresses.trial(kind, fault, tls=tls))
        return last[-1].seconds

    in_time(limit, serve, tries=2)
    (outcome,) = last[-1:]
    assert outcome.failures == []
    # The next attempt begins with the address that is good.
    assert outcome.passed_over == [f"{twoaddresses.FIRST}: {said}", ""]
    assert any(f"addresses: {twoaddresses.FIRST}: {said}" in line for line in outcome.doctor)


def test_the_next_attempt_begins_after_the_address_that_failed(broker: EmbeddedBroker, names: Names) -> None:
    names(twin=("127.0.0.2", "127.0.0.1"))
    events = Events()
    with silent("127.0.0.2", broker.port) as mute:
        address = f"stomp://ada:s3cret@twin:{broker.port}"
        with running(fast(address, connect_timeout=4.0), on_event=events) as bus:
            bus._supervisor.reconnect("for a test")
            events.wait(Connected, 2)
            bus.publish("/queue/q", text("x"))
        assert len(mute.accepted) == 1
    assert events.of(ConnectFailed) == []


def test_an_address_without_an_answer_is_passed_over_in_a_moment(broker: EmbeddedBroker, names: Names) -> None:
    names(twin=("127.0.0.2", "127.0.0.3", "127.0.0.1"))

    def connect() -> float:
        began = time.monotonic()
        with Bus(fast(f"stomp://ada:s3cret@twin:{broker.port}", connect_timeout=60.0)) as bus:
            assert bus.wait_connected(59)
            connection = connection_of(bus)
            assert connection is not None
            assert "127.0.0.2: no connection in" in connection.passed_over
            return time.monotonic() - began

    with deaf("127.0.0.2", broker.port), deaf("127.0.0.3", broker.port):
        in_time(5.0, connect)


def test_the_error_says_which_address_did_what(broker: EmbeddedBroker, names: Names) -> None:
    names(twin=("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.1"))
    events = Events()
    with silent("127.0.0.2", broker.port), deaf("127.0.0.4", broker.port):
        settings = fast(f"stomp://ada:canary@twin:{broker.port}", connect_timeout=3.0)
        with Bus(settings, on_event=events) as bus:
            problem = events.wait(ConnectFailed)[0].problem
            assert bus._supervisor.hopeless is None  # two addresses never said anything about our login
    assert problem.startswith(f"stomp://twin:{broker.port}: ")
    for said in (
        "127.0.0.2: connected, but no answer to CONNECT in time",
        "127.0.0.3: Connection refused",
        "127.0.0.4: no connection in ",
        "127.0.0.1: it refused the login: ",
    ):
        assert said in problem
    assert "check login, passcode and vhost" in problem
    assert "canary" not in problem


def test_addresses_that_refuse_cost_no_time(broker: EmbeddedBroker, names: Names) -> None:
    """The whole list is tried again after the back-off, and not after the time of an attempt."""
    names(twin=("127.0.0.2", "127.0.0.3"))
    events = Events()
    with Bus(
        fast(f"failover:(stomp://127.0.0.2:{broker.port},stomp://twin:{broker.port})", connect_timeout=3600.0),
        on_event=events,
    ):
        events.wait(ConnectFailed, 4)
    with pytest.raises(
        ConnectionRefusedError, match=r"127\.0\.0\.2: Connection refused; 127\.0\.0\.3: Connection refused"
    ):
        hosts.connect("twin", broker.port, 3600.0)


def test_a_login_that_every_address_refuses_is_a_refused_login(broker: EmbeddedBroker, names: Names) -> None:
    names(twin=("127.0.0.1", "127.0.0.2"))
    with (
        EmbeddedBroker(host="127.0.0.2", port=broker.port, users={"ada": "s3cret"}),
        Bus(fast(f"stomp://ada:wrong@twin:{broker.port}")) as bus,
        pytest.raises(LoginRefused, match=r"127\.0\.0\.1: .*; 127\.0\.0\.2: "),
    ):
        bus.wait_connected(30)


def test_a_failover_list_of_names_is_walked_through_all_their_addresses(broker: EmbeddedBroker, names: Names) -> None:
    names(one=("127.0.0.2", "127.0.0.3"), two=("127.0.0.3", "127.0.0.1"))
    events, port = Events(), broker.port
    address = f"failover:(stomp://one:{port},stomp://ada:s3cret@two:{port})?randomize=false"
    with (
        silent("127.0.0.2", port),
        deaf("127.0.0.3", port),
        running(fast(address, connect_timeout=2.0), on_event=events) as bus,
    ):
        bus.publish("/queue/q", text("x"))
    failed = events.of(ConnectFailed)[0]
    assert failed.broker == f"stomp://one:{port}"
    assert "127.0.0.2: connected, but no answer" in failed.problem
    assert "127.0.0.3: no connection" in failed.problem


def test_a_resolver_that_hangs_is_asked_once_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = [], threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        asked.append(threading.current_thread())
        answer.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    events = Events()
    bus = Bus(fast("stomp://slow.example", connect_timeout=0.1), on_event=events).start()
    events.wait(ConnectFailed, 3)
    assert "looking up its name took too long" in events.of(ConnectFailed)[0].problem
    began = time.monotonic()
    bus.stop()
    assert time.monotonic() - began < 30, "it was not waited for"
    answer.set()
    assert len(asked) == 1


def test_a_name_is_looked_up_again_at_each_attempt(broker: EmbeddedBroker, names: Names) -> None:
    names(moved=("127.0.0.9",))
    events = Events()
    with Bus(fast(f"stomp://ada:s3cret@moved:{broker.port}"), on_event=events) as bus:
        events.wait(ConnectFailed)
        names(moved=("127.0.0.1",))
        assert bus.wait_connected(30)


def test_what_a_race_opened_is_closed_however_it_ends(broker: EmbeddedBroker, names: Names) -> None:
    names(twin=("127.0.0.2", "127.0.0.3", "127.0.0.1"), dead=("127.0.0.2", "127.0.0.3"))
    with deaf("127.0.0.2", broker.port), deaf("127.0.0.3", broker.port):
        before = our_sockets(broker.port)
        with running(fast(f"stomp://ada:s3cret@twin:{broker.port}")):
            assert our_sockets(broker.port) != before
        assert our_sockets(broker.port) == before
        bus = Bus(fast(f"stomp://dead:{broker.port}", connect_timeout=3600.0)).start()
        wait_until(lambda: len(our_sockets(broker.port)) == len(before) + 2)
        bus.stop()
        assert our_sockets(broker.port) == before


# -- who else dials -----------------------------------------------------------------------------------------------


@pytest.fixture
def web() -> Iterator[int]:
    """The port of a web server at 127.0.0.1 that has nothing."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("scheme", ["git", "http", "health"])
def test_origins_and_sites_with_a_dead_first_address_answer_from_the_second(
    scheme: str, names: Names, web: int, tmp_path: Path
) -> None:
    names(twin=("127.0.0.2", "127.0.0.1"))
    settings = MirrorSettings(allow_http=True, connect_timeout=120.0, stall_timeout=120.0)

    def ask() -> float:
        began = time.monotonic()
        if scheme == "git":
            connect("twin", web, settings, Deadline(120.0, stall=120.0, what="a test")).close()
        elif scheme == "http":
            with (
                Mirror.open(tmp_path / "m.git", f"http://twin:{web}/x", settings) as mirror,
                pytest.raises(OriginError, match="answers HTTP 501"),
            ):
                mirror.fetch(deadline=120.0)
        else:
            assert health._ask(f"http://twin:{web}/", 120.0).startswith("501")
        return time.monotonic() - began

    with deaf("127.0.0.2", web):
        in_time(20.0, ask, tries=2)


def our_sockets(port: int) -> set[str]:
    """The TCP sockets that this process has open towards a port, by inode."""
    held = set()
    for file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the listing's own
            held.add(str(file.readlink()))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[9] for row in rows if row[2].endswith(f":{port:04X}") and f"socket:[{row[9]}]" in held}
