"""A real IRC server (ngircd) on loopback ports of its own, and somebody in a channel who reads along."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.brokers.certs import Identity
from tests.support.needs import needs
from tests.support.ports import free_port
from tests.support.wait import wait_until


class Ngircd:
    """One server; `start` and `stop` may be called in turn.

    Args:
        identity: of TLS, on a second port.
        password: that everybody must give; empty for none.
    """

    def __init__(self, *, identity: Identity | None = None, password: str = "") -> None:
        self._program = needs("ngircd", package="ngircd")
        self.directory = Path(tempfile.mkdtemp(prefix="dkirc", dir="/tmp"))
        self.directory.chmod(0o755)
        self.port, self.tls_port = free_port(), free_port()
        lines = [
            *("[Global]", "Name = irc.test.local", "Info = test", "Listen = 127.0.0.1", f"Ports = {self.port}"),
            *([f"Password = {password}"] if password else []),
            *(
                "MotdPhrase = hello",
                "[Limits]",
                "MaxConnectionsIP = 0",
                "MaxNickLength = 9",
                "PingTimeout = 1",
                "MaxPenaltyTime = 0",
            ),
            *("[Options]", "DNS = no", "Ident = no", "PAM = no", "SyslogFacility = local1"),
        ]
        if identity is not None:
            for name, file in (("cert.pem", identity.cert_file), ("key.pem", identity.key_file)):
                (self.directory / name).write_bytes(file.read_bytes())
                (self.directory / name).chmod(0o644)  # read by nobody, whom root's server becomes
            cert, key = self.directory / "cert.pem", self.directory / "key.pem"
            lines += ["[SSL]", f"CertFile = {cert}", f"KeyFile = {key}", f"Ports = {self.tls_port}"]
        self._config = self.directory / "ngircd.conf"
        self._config.write_text("\n".join(lines) + "\n")
        self._log = self.directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        with self._log.open("ab") as out:
            argv = [str(self._program), "-n", "-f", str(self._config)]
            self._process = subprocess.Popen(argv, stdout=out, stderr=out, env={**os.environ, "LANG": "C"})
        wait_until(self._listens, "ngircd listens")

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """End it at once: every connection breaks off."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(20)
            self._process = None

    def remove(self) -> None:
        """End it, and remove its files."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


@contextmanager
def running_ngircd(*, identity: Identity | None = None, password: str = "") -> Iterator[Ngircd]:
    """Yield a server that runs."""
    server = Ngircd(identity=identity, password=password)
    try:
        server.start()
        yield server
    finally:
        server.remove()


class IrcPeer:
    """Somebody in a channel: keeps what comes, and says what a test wants."""

    def __init__(self, port: int, nick: str, channel: str = "#ops", *, password: str = "") -> None:
        self.lines: list[str] = []
        self._sock = socket.create_connection(("127.0.0.1", port), 10)
        self._sock.settimeout(60)
        self._thread = threading.Thread(target=self._read, name=f"irc-{nick}", daemon=True)
        login = f"PASS :{password}\r\n" if password else ""
        self.say(f"{login}NICK {nick}\r\nUSER {nick} 0 * :{nick}")
        self._thread.start()
        wait_until(lambda: self.has(" 001 "), "the login of the peer")
        self.say(f"JOIN {channel}")
        wait_until(lambda: self.has(" 366 "), "the peer is in the channel")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with suppress(OSError):  # the server has gone already
            self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._sock.close()

    def say(self, line: str) -> None:
        """Send a line of the protocol."""
        self._sock.sendall(f"{line}\r\n".encode())

    def has(self, text: str) -> bool:
        """Whether a line with a text has come."""
        return any(text in line for line in list(self.lines))

    def heard(self) -> list[tuple[str, str]]:
        """What was said in the channel: who, and what."""
        found = [line.split(" ", 3) for line in list(self.lines) if " PRIVMSG " in line]
        return [(parts[0][1:].partition("!")[0], parts[3][1:]) for parts in found]

    def _read(self) -> None:
        rest = b""
        try:
            while data := self._sock.recv(65536):
                *lines, rest = (rest + data).split(b"\r\n")
                for line in lines:
                    if line.startswith(b"PING"):
                        self._sock.sendall(b"PONG" + line[4:] + b"\r\n")
                    self.lines.append(line.decode())
        except OSError:
            return
