"""An origin that stalls, drips or talks without end is given up in time, and costs nothing but that time."""

from __future__ import annotations

import os
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from deploykit.errors import DeadlineExceeded, LockBusy, OriginError
from deploykit.mirror import Mirror
from deploykit.settings import MirrorSettings
from tests.support.origins import GitRepo
from tests.support.processes import wait_gone

Behave = Callable[[socket.socket], None]

#: How late a fetch may end after its deadline on a busy machine. What it has to give up takes 20 s and more.
LATE = 15.0


def packet(payload: bytes) -> bytes:
    return b"%04x%b" % (len(payload) + 4, payload)


HELLO = (
    packet(b"version 2\n")
    + packet(b"ls-refs=unborn\n")
    + packet(b"fetch=\n")
    + packet(b"object-format=sha1\n")
    + b"0000"
)
REFS = (
    packet(b"a" * 40 + b" HEAD symref-target:refs/heads/main\n") + packet(b"a" * 40 + b" refs/heads/main\n") + b"0000"
)


@contextmanager
def server(behave: Behave) -> Iterator[int]:
    """A server that does as it is told with each connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    stop = threading.Event()
    open_ones: list[socket.socket] = []

    def handle(connection: socket.socket) -> None:
        with suppress(OSError):
            behave(connection)

    def serve() -> None:
        while not stop.is_set():
            with suppress(TimeoutError):
                connection, _ = listener.accept()
                open_ones.append(connection)
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        stop.set()
        thread.join()
        for connection in open_ones:
            connection.close()
        listener.close()


def read_some(connection: socket.socket) -> bytes:
    return connection.recv(65536)


def silent(connection: socket.socket) -> None:
    time.sleep(30)


def silent_after_refs(connection: socket.socket) -> None:
    read_some(connection)
    connection.sendall(HELLO)
    read_some(connection)
    connection.sendall(REFS)
    read_some(connection)
    time.sleep(30)


def stops_inside_the_pack(connection: socket.socket) -> None:
    read_some(connection)
    connection.sendall(HELLO)
    read_some(connection)
    connection.sendall(REFS)
    read_some(connection)
    connection.sendall(packet(b"packfile\n") + packet(b"\1PACK\0\0\0\2\0\0\0\5"))
    time.sleep(30)


def drips(connection: socket.socket) -> None:
    """One byte at a time: no single wait is long."""
    read_some(connection)
    for byte in HELLO + REFS * 1000:
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


def keeps_alive_for_ever(connection: socket.socket) -> None:
    read_some(connection)
    connection.sendall(HELLO)
    read_some(connection)
    connection.sendall(REFS)
    read_some(connection)
    connection.sendall(packet(b"packfile\n"))
    while True:
        connection.sendall(packet(b"\1"))
        time.sleep(0.02)


def never_reads(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    time.sleep(30)


@pytest.mark.parametrize(
    "behave", [silent, silent_after_refs, stops_inside_the_pack, drips, keeps_alive_for_ever, never_reads]
)
@pytest.mark.parametrize("how", ["deadline", "stall"])
def test_a_stalled_git_server_is_given_up_in_time(behave: Behave, how: str, tmp_path: Path) -> None:
    settings = MirrorSettings(stall_timeout=0.4 if how == "stall" else 60.0)
    deadline = 1.0
    with server(behave) as port, Mirror.open(tmp_path / "m.git", f"git://127.0.0.1:{port}/x", settings) as mirror:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            mirror.fetch(deadline=deadline)
        assert time.monotonic() - started < deadline + LATE
        assert list((tmp_path / "m.git" / "quarantine").iterdir()) == []
        assert mirror.refs == {}


def http_silent_after_headers(connection: socket.socket) -> None:
    read_some(connection)
    connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    time.sleep(30)


def http_drips_headers(connection: socket.socket) -> None:
    read_some(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for n in range(1000):
        connection.sendall(b"X-%d: y\r\n" % n if n % 2 else b"X")
        time.sleep(0.02)


@pytest.mark.parametrize("behave", [silent, http_silent_after_headers, http_drips_headers])
def test_a_stalled_web_server_is_given_up_in_time(behave: Behave, tmp_path: Path) -> None:
    settings = MirrorSettings(allow_http=True)
    with server(behave) as port, Mirror.open(tmp_path / "m.git", f"http://127.0.0.1:{port}/x", settings) as mirror:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            mirror.fetch(deadline=1.0)
        assert time.monotonic() - started < 1.0 + LATE


def test_a_tls_handshake_that_never_ends_is_given_up_in_time(tmp_path: Path) -> None:
    with server(silent) as port, Mirror.open(tmp_path / "m.git", f"https://127.0.0.1:{port}/x") as mirror:
        started = time.monotonic()
        with pytest.raises((DeadlineExceeded, OriginError)):
            mirror.fetch(deadline=1.0)
        assert time.monotonic() - started < 1.0 + LATE


@pytest.mark.parametrize(
    ("program", "address"), [("git", "file:///nowhere/x.git"), ("ssh", "ssh://host.invalid/x.git")]
)
def test_a_hanging_program_is_killed_with_all_it_started(
    program: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin" / program
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\nsleep 60 &\necho $! > {tmp_path}/grandchild\necho $$ > {tmp_path}/child\nwait\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    with Mirror.open(tmp_path / "m.git", address) as mirror:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            mirror.fetch(deadline=6.0)  # time enough for it to start something
        assert time.monotonic() - started < 6.0 + LATE
    for name in ("child", "grandchild"):
        wait_gone(int((tmp_path / name).read_text()))


def test_a_name_server_that_does_not_answer_costs_the_connect_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        answer.wait(30)
        return []  # nobody is there any more who asks

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    settings = MirrorSettings(connect_timeout=0.3)
    started = time.monotonic()
    with pytest.raises(OriginError, match="resolver does not answer"):
        Mirror.open(tmp_path / "m.git", "git://slow.example/x", settings).fetch()
    assert time.monotonic() - started < 0.3 + LATE
    answer.set()


def endless_refs(connection: socket.socket) -> None:
    read_some(connection)
    connection.sendall(HELLO)
    read_some(connection)
    piece = b"".join(packet(b"%040d refs/heads/b%d\n" % (n, n)) for n in range(1, 2000))
    while True:
        connection.sendall(piece)


def endless_pack(connection: socket.socket) -> None:
    read_some(connection)
    connection.sendall(HELLO)
    read_some(connection)
    connection.sendall(REFS)
    read_some(connection)
    # A blob that says it has 2^40 bytes: header bytes, then zlib that never ends.
    squeeze = zlib.compressobj(1)
    head = b"\xb0\x80\x80\x80\x80\x80\x80\x08"
    connection.sendall(packet(b"packfile\n") + packet(b"\1PACK\0\0\0\2\0\0\0\1" + head))
    noise = os.urandom(60000)
    while True:
        data = squeeze.compress(noise) + squeeze.flush(zlib.Z_SYNC_FLUSH)
        for at in range(0, len(data), 65000):
            connection.sendall(packet(b"\1" + data[at : at + 65000]))


@pytest.mark.parametrize(
    ("behave", "match"), [(endless_refs, "longer than this mirror accepts"), (endless_pack, "max_pack_bytes")]
)
def test_an_answer_without_end_is_cut_at_the_cap(behave: Behave, match: str, tmp_path: Path) -> None:
    settings = MirrorSettings(max_listing_bytes=4 << 20, max_pack_bytes=16 << 20)
    with (
        server(behave) as port,
        Mirror.open(tmp_path / "m.git", f"git://127.0.0.1:{port}/x", settings) as mirror,
        pytest.raises(OriginError, match=match),
    ):
        mirror.fetch(deadline=150)
    assert list((tmp_path / "m.git" / "quarantine").iterdir()) == []


def test_a_deadline_also_bounds_the_wait_for_another_fetch(tmp_path: Path) -> None:
    repo = GitRepo.make(tmp_path / "origin.git")
    repo.commit()
    connected = threading.Event()

    def tell_and_wait(connection: socket.socket) -> None:
        connected.set()
        time.sleep(30)

    with server(tell_and_wait) as port:
        slow = Mirror.open(tmp_path / "m.git", f"git://127.0.0.1:{port}/x")
        other = threading.Thread(target=lambda: suppress_origin_error(slow))
        other.start()
        assert connected.wait(30)  # so it holds the lock
        started = time.monotonic()
        with pytest.raises(LockBusy, match="is being fetched by another process"):
            Mirror.open(tmp_path / "m.git", str(repo.path)).fetch(deadline=0.5)
        assert time.monotonic() - started < 0.5 + LATE
    other.join()


def suppress_origin_error(mirror: Mirror) -> None:
    with suppress(OriginError):
        mirror.fetch(deadline=60.0)
