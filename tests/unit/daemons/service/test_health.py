"""The pages over real sockets: what they answer, to whom, for how long; and whose socket is replaced."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from deploykit.daemons.service import health
from deploykit.daemons.service.health import MAX_CONNECTIONS, HealthServer
from deploykit.daemons.service.listeningsocket import ListeningSocket
from deploykit.daemons.service.metrics import Metrics
from deploykit.daemons.service.pagehttp import MAX_HEAD, Page, PageRequest, read_request
from deploykit.errors import UsageError
from deploykit.settings.service import PagesAddress
from tests.support.wait import wait_until

ANY_PORT = PagesAddress(host="127.0.0.1", port=0)


class Probe:
    """A service as a test wants it."""

    def __init__(self) -> None:
        self.hanging: list[str] = []
        self.found: list[str] = []
        self.harmless: list[str] = []
        self.broken = False

    def stuck(self) -> list[str]:
        return self.hanging

    def notes(self) -> list[str]:
        return self.harmless

    def problems(self) -> list[str]:
        if self.broken:
            raise RuntimeError("canary")
        return self.found


@pytest.fixture
def probe() -> Probe:
    return Probe()


@pytest.fixture
def server(probe: Probe) -> Iterator[HealthServer]:
    """A server whose clock stands still: on a busy machine no deadline is over before its caller was served."""
    with HealthServer(probe, Metrics(), clock=lambda: 0.0) as made:
        made.listen(ANY_PORT)
        yield made


def connected(address: PagesAddress | None) -> socket.socket:
    assert address is not None
    if address.path is not None:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(60)
        made.connect(str(address.path))
        return made
    return socket.create_connection((address.host, address.port), timeout=60)


def everything(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def ask(address: PagesAddress | None, request: bytes) -> tuple[int, dict[str, str], str]:
    """Send a request; return status, headers and body."""
    with closing(connected(address)) as connection:
        connection.sendall(request)
        head, _, body = everything(connection).partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, body.decode()


def get(server: HealthServer, path: str) -> tuple[int, str]:
    status, headers, body = ask(server.address, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert int(headers["Content-Length"]) == len(body.encode())
    return status, body


# -- the pages -----------------------------------------------------------------------------------------------------


def test_live_fails_when_something_hangs_and_not_when_the_broker_is_away(server: HealthServer, probe: Probe) -> None:
    probe.found = ["waiting for a broker"]
    assert get(server, "/live") == (200, "alive\n")
    probe.hanging = ["the bus's own thread has not answered for 21 s"]
    assert get(server, "/live") == (503, "the bus's own thread has not answered for 21 s\n")


def test_ready_names_each_problem_on_a_line_of_its_own(server: HealthServer, probe: Probe) -> None:
    assert get(server, "/ready") == (200, "ready\n")
    probe.harmless = ["ci: not reachable for 5 minutes, 12 builds wait"]
    assert get(server, "/ready") == (200, "ready\nci: not reachable for 5 minutes, 12 builds wait\n")
    probe.found = ["waiting for a broker", "no key\nis trusted"]
    assert get(server, "/ready") == (503, "waiting for a broker\nno key is trusted\n")


def test_metrics_are_prometheus_text(server: HealthServer) -> None:
    status, headers, body = ask(server.address, b"GET /metrics?name=x HTTP/1.0\n\n")
    assert status == 200
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "deploykit_build_info{" in body


def test_metrics_without_prometheus_client_say_what_to_install(
    server: HealthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "deploykit.daemons.service.exposition", None)
    monkeypatch.delitem(sys.modules, "deploykit.daemons.service.exposition")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert get(server, "/metrics") == (
        501,
        "prometheus-client is not installed: pip install 'deploykit[metrics]'\n",
    )
    assert get(server, "/live")[0] == 200


def test_a_page_that_cannot_be_made_says_so_and_the_others_go_on(
    server: HealthServer, probe: Probe, caplog: pytest.LogCaptureFixture
) -> None:
    probe.broken = True
    assert get(server, "/ready") == (500, "RuntimeError; see the log\n")
    assert get(server, "/ready")[0] == 500
    assert len([r for r in caplog.records if "cannot make the page /ready" in r.getMessage()]) == 1
    assert get(server, "/live") == (200, "alive\n")


def test_head_gives_the_head_alone(server: HealthServer) -> None:
    status, headers, body = ask(server.address, b"HEAD /live HTTP/1.1\r\n\r\n")
    assert (status, headers["Content-Length"], body) == (200, "6", "")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /nowhere HTTP/1.1\r\n\r\n", 404),
        (b"GET //live HTTP/1.1\r\n\r\n", 404),
        (b"POST /live HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"DELETE /live HTTP/1.1\r\n\r\n", 405),
        (b"GET http://elsewhere/ HTTP/1.1\r\n\r\n", 400),
        (b"GET /live\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET /live HTTP/1.1\r\nX: " + b"x" * MAX_HEAD, 431),
        (b"GET /live HTTP/1.1\r\nX: " + b"x" * MAX_HEAD + b"\r\n\r\n", 431),
    ],
)
def test_other_requests_are_refused(server: HealthServer, request_bytes: bytes, status: int) -> None:
    found, headers, body = ask(server.address, request_bytes)
    assert found == status
    assert body.endswith("\n")
    assert ("Allow" in headers) == (status == 405)


def test_a_request_may_come_in_pieces(server: HealthServer) -> None:
    with closing(connected(server.address)) as connection:
        for piece in (b"GET /li", b"ve HTTP/1.1\r\nHo", b"st: x\r\n\r", b"\n"):
            connection.sendall(piece)
        assert everything(connection).endswith(b"alive\n")


@pytest.mark.parametrize(
    ("received", "found"),
    [
        (b"GET /live HTTP/1.1\r\n", None),
        (b"GET /live HTTP/1.1\r\n\r\n", PageRequest("/live")),
        (b"GET /live?a=b HTTP/1.0\n\nrest", PageRequest("/live")),
        (b"HEAD / HTTP/1.1\r\n\r\n", PageRequest("/", head_only=True)),
    ],
)
def test_a_request_is_read_when_it_is_whole(received: bytes, found: PageRequest | None) -> None:
    assert read_request(received) == found


def test_no_bytes_are_both_a_request_and_none() -> None:
    for size in range(MAX_HEAD + 3):
        found = read_request(b"G" * size)
        assert isinstance(found, Page) == (size > MAX_HEAD)


# -- bounds --------------------------------------------------------------------------------------------------------


def test_a_caller_that_sends_nothing_is_cut_off_at_the_deadline(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "DEADLINE", 0.2)
    with HealthServer(probe, Metrics()) as server:
        server.listen(ANY_PORT)
        with closing(connected(server.address)) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(b"GET /live HT")
            assert everything(connection) == b""


def test_drops_of_bytes_do_not_move_the_deadline(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "DEADLINE", 0.5)
    with HealthServer(probe, Metrics()) as server:
        server.listen(ANY_PORT)
        begun = time.monotonic()
        with closing(connected(server.address)) as connection, contextlib.suppress(OSError):
            while time.monotonic() - begun < 60:
                connection.sendall(b"x")
                time.sleep(0.01)
        assert time.monotonic() - begun < 30


def test_callers_that_wait_keep_out_no_other(server: HealthServer) -> None:
    waiting = [connected(server.address) for _ in range(3 * MAX_CONNECTIONS)]
    try:
        assert get(server, "/live") == (200, "alive\n")
        loop = server._loop
        assert loop is not None
        assert len(loop._callers) <= MAX_CONNECTIONS
    finally:
        for each in waiting:
            each.close()


def test_a_caller_that_reads_nothing_holds_up_no_other(probe: Probe, server: HealthServer) -> None:
    probe.found = ["x" * 1000] * 20_000
    with closing(connected(server.address)) as slow:
        slow.sendall(b"GET /ready HTTP/1.1\r\n\r\n")
        probe_again = get(server, "/live")
        assert probe_again == (200, "alive\n")
        assert len(everything(slow)) > 20_000_000


def test_many_callers_leave_nothing_behind(server: HealthServer) -> None:
    def use() -> tuple[int, int]:
        return threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    get(server, "/metrics")
    before = use()
    for number in range(200):
        get(server, ("/live", "/metrics", "/nowhere")[number % 3])
        connected(server.address).close()
    wait_until(lambda: use() <= before, f"nothing left behind, was {before}, is {use()}")


def test_without_a_descriptor_left_it_rests_and_goes_on(
    probe: Probe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = HealthServer(probe, Metrics())
    server.listen(ANY_PORT)
    loop = server._loop
    assert loop is not None
    monkeypatch.setattr(health, "_REST", 0.05)
    calls: list[int] = []

    class Exhausted:
        def fileno(self) -> int:
            return listener.fileno()

        def accept(self) -> tuple[socket.socket, object]:
            calls.append(1)
            if len(calls) < 3:
                raise OSError(24, "Too many open files")
            return listener.accept()

    listener = loop._listener
    monkeypatch.setattr(loop, "_listener", Exhausted())
    assert get(server, "/live") == (200, "alive\n")
    assert len(calls) == 3
    assert len([r for r in caplog.records if "Too many open files" in r.getMessage()]) == 1
    server.close()


# -- where it listens ----------------------------------------------------------------------------------------------


def test_a_port_in_use_is_named_with_the_way_out_and_the_old_one_stays(server: HealthServer) -> None:
    before = server.address
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=rf"port {port} on 127.0.0.1 is in use .*listen_of"):
            server.listen(PagesAddress(host="127.0.0.1", port=port))
    assert server.address == before
    assert get(server, "/live") == (200, "alive\n")


def test_an_address_counts_once_what_it_was_opened_for_has_succeeded(server: HealthServer, tmp_path: Path) -> None:
    before = server.address
    with contextlib.suppress(KeyError), server.opening(PagesAddress(path=tmp_path / "pages.sock")):
        assert (tmp_path / "pages.sock").exists()
        raise KeyError
    assert server.address == before
    assert list(tmp_path.iterdir()) == []
    assert get(server, "/live") == (200, "alive\n")


def test_the_same_address_again_interrupts_nothing(server: HealthServer) -> None:
    with closing(connected(server.address)) as connection:
        connection.sendall(b"GET /live HTTP/1.1\r\n")
        server.listen(ANY_PORT)
        connection.sendall(b"\r\n")
        assert everything(connection).endswith(b"alive\n")


def test_another_address_takes_the_place_of_the_first_and_none_ends_it(server: HealthServer, tmp_path: Path) -> None:
    before = server.address
    server.listen(PagesAddress(path=tmp_path / "pages.sock"))
    assert get(server, "/live") == (200, "alive\n")
    with pytest.raises(ConnectionRefusedError):
        connected(before)
    server.listen(None)
    assert server.address is None
    assert list(tmp_path.iterdir()) == []
    assert "deploykit-pages" not in {thread.name for thread in threading.enumerate()}


def test_a_unix_socket_is_for_owner_and_group(server: HealthServer, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        server.listen(PagesAddress(path=tmp_path / "pages.sock"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "pages.sock").stat().st_mode) == 0o660
    assert [each.name for each in tmp_path.iterdir()] == ["pages.sock"]


def test_the_socket_of_a_dead_process_is_replaced(server: HealthServer, tmp_path: Path) -> None:
    path = tmp_path / "pages.sock"
    code = f"import os, socket; s = socket.socket(socket.AF_UNIX); s.bind({str(path)!r}); s.listen(); os._exit(0)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert stat.S_ISSOCK(path.stat().st_mode)
    server.listen(PagesAddress(path=path))
    assert get(server, "/live") == (200, "alive\n")


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "backlog-full"])
def test_the_socket_of_a_living_process_is_left_to_it(server: HealthServer, tmp_path: Path, busy: bool) -> None:
    path = tmp_path / "pages.sock"
    waiting: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(0)
        if busy:
            waiting = _fill(path)
        found = path.lstat().st_ino
        with pytest.raises(UsageError, match=r"pages\.sock is in use by a running process"):
            server.listen(PagesAddress(path=path))
        assert path.lstat().st_ino == found
    for each in waiting:
        each.close()


def _fill(path: Path) -> list[socket.socket]:
    """Connect until there is no room for one more to wait."""
    made: list[socket.socket] = []
    while True:
        caller = socket.socket(socket.AF_UNIX)
        made.append(caller)
        caller.setblocking(False)
        try:
            caller.connect(str(path))
        except BlockingIOError:
            return made


@pytest.mark.parametrize("make", [lambda p: p.write_text("mine"), lambda p: p.mkdir(), lambda p: p.symlink_to("/x")])
def test_what_is_no_socket_is_never_removed(
    server: HealthServer, tmp_path: Path, make: Callable[[Path], object]
) -> None:
    path = tmp_path / "pages.sock"
    make(path)
    with pytest.raises(UsageError, match="is in the way: it is no socket"):
        server.listen(PagesAddress(path=path))
    assert path.is_symlink() or path.exists()


def test_a_directory_that_is_missing_is_named(server: HealthServer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot listen on .*/nowhere/pages\.sock: No such file"):
        server.listen(PagesAddress(path=tmp_path / "nowhere" / "pages.sock"))


def test_the_socket_of_the_next_process_is_not_removed_by_the_end_of_this_one(tmp_path: Path) -> None:
    address = PagesAddress(path=tmp_path / "pages.sock")
    first = ListeningSocket(address)
    first.socket.close()  # as if it were dead
    second = ListeningSocket(address)
    first.close()
    assert (tmp_path / "pages.sock").exists()
    second.close()
    assert not (tmp_path / "pages.sock").exists()
