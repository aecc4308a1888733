"""`deploykit web` as a process: its address, TERM with streams open, HUP with good and with wrong settings."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from deploykit.broker.server import EmbeddedBroker
from tests.support.cli import run
from tests.support.daemon import RunningDaemon
from tests.support.wait import wait_until

STREAMS = 100


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    """A broker on a free port."""
    with EmbeddedBroker() as made:
        yield made


class RunningConsole(RunningDaemon):
    """`deploykit web` on a free port."""

    def __init__(self, directory: Path, address: str, *words: str) -> None:
        super().__init__(directory, address, "web", "--listen", "127.0.0.1:0", *words)

    @property
    def url(self) -> str:
        """Where it serves, as it says."""
        lines = wait_until(lambda: [one for one in self.lines() if one.startswith("ready: console at ")], "ready")
        return lines[-1].removeprefix("ready: console at ")

    def lines(self) -> list[str]:
        """Return what it printed."""
        return self.log.read_text().splitlines()


def connected(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    return socket.create_connection((host, int(port)), timeout=60)


def test_term_waits_for_none_of_a_hundred_open_streams(broker: EmbeddedBroker, tmp_path: Path) -> None:
    with RunningConsole(tmp_path, broker.address) as console, ExitStack() as stack:
        url = console.url
        host = url.removeprefix("http://").rstrip("/")
        for _ in range(STREAMS):
            stream = stack.enter_context(closing(connected(url)))
            stream.sendall(f"GET /api/v1/events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert stream.recv(4096).startswith(b"HTTP/1.1 200")
        begun = time.monotonic()
        assert console.term() == 0, console.log.read_text()
        assert time.monotonic() - begun < 30  # a stream has no end of its own
    assert "Traceback" not in console.log.read_text()


def test_hup_keeps_the_socket_and_wrong_settings_change_nothing(broker: EmbeddedBroker, tmp_path: Path) -> None:
    with RunningConsole(tmp_path, broker.address) as console:
        url = console.url
        failures: list[str] = []
        over = threading.Event()

        def ask() -> None:
            while not over.is_set():
                try:
                    status = httpx.get(f"{url}api/v1/health", timeout=30).status_code
                except httpx.HTTPError as error:
                    failures.append(repr(error))
                else:
                    if status != 200:
                        failures.append(str(status))

        with ExitStack() as stack:
            threads = [threading.Thread(target=ask) for _ in range(2)]
            for thread in threads:
                thread.start()
                stack.callback(thread.join, 60)
            stack.callback(over.set)
            console.write(broker.address, "[web]\nask_every = 1\n")
            console.hup()
            wait_until(lambda: "settings not reloaded" in console.log.read_text(), "the wrong settings are refused")
            console.write(broker.address, "[web]\nask_every = 60\n")
            console.hup()
            wait_until(lambda: "settings read again: web.ask_every" in console.log.read_text(), "read again")
            wait_until(lambda: sum(one.startswith("ready: ") for one in console.lines()) == 2, "ready again")
        assert httpx.get(url, timeout=30).status_code == 200
        assert failures == []


def test_without_a_login_it_listens_on_this_machine_alone(tmp_path: Path) -> None:
    settings = tmp_path / "deploykit.toml"
    settings.write_text(f'node = "web1"\nstate = "{tmp_path}"\n')
    done = run("web", "--listen", "0.0.0.0:0", "--config", str(settings))
    assert done.returncode == 2
    assert "--listen: without a login only a loopback address" in done.stderr


def test_a_port_that_is_taken_is_one_clear_line(tmp_path: Path, broker: EmbeddedBroker) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        settings = tmp_path / "deploykit.toml"
        settings.write_text(
            f'node = "web1"\nstate = "{tmp_path}/state"\n[broker]\naddress = "{broker.address}"\n'
            f'[web]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\n'
        )
        settings.chmod(0o600)
        done = run("web", "--config", str(settings))
    assert done.returncode == 2
    assert "[web] listen: port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_ledger_is_one_clear_line_and_stays(tmp_path: Path, broker: EmbeddedBroker) -> None:
    file = tmp_path / "state" / "web" / "ledger.db"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no database " * 1000)
    file.chmod(0o600)
    settings = tmp_path / "deploykit.toml"
    settings.write_text(
        f'node = "web1"\nstate = "{tmp_path}/state"\n[broker]\naddress = "{broker.address}"\n'
        '[web]\nlisten = "127.0.0.1:0"\n'
    )
    settings.chmod(0o600)
    done = run("web", "--config", str(settings))
    assert done.returncode == 1
    assert f"the console's ledger {file} is damaged" in done.stderr
    assert "restore it from a backup" in done.stderr
    assert "Traceback" not in done.stderr
    assert file.read_bytes() == b"no database " * 1000


def test_the_help_of_the_command_needs_none_of_the_extra(tmp_path: Path) -> None:
    done = run("web", "--help")
    assert done.returncode == 0
    assert "deploykit web --config" in done.stdout
