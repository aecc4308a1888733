"""What a private RabbitMQ and a private ActiveMQ have in common: the life of a process tree that tests can kill.

Rules: everything listens on 127.0.0.1 only; ports and data stay the same over stop, kill -9 and restart; `start`
returns when a real STOMP login was answered on every listener, or raises with the end of the server's log; whatever
was started carries a mark (see reaper.py), so that `stop` can prove that nothing is left.
"""

from __future__ import annotations

import re
import secrets
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from tests.brokers.certs import Authority, Identity
from tests.brokers.process import PortLease, current_run, listening_addresses
from tests.brokers.rawstomp import RawStomp, RawStompError
from tests.brokers.reaper import MARK_VARIABLE, end_marked, marked_processes, signal_marked

_HOST = "127.0.0.1"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class BrokerFailed(RuntimeError):
    """The broker did not start or stop; the message holds the end of its log."""


class BrokerServer(ABC):
    """A private broker. `start()` it, or use it as a context manager; `close()` also removes its data.

    Args:
        login: name of the user who may do everything.
        more_users: further logins with their passcodes, same rights.
        client_certs: the TLS listener demands a client certificate of our CA and logs in its common name without a
            passcode; `client_identity` is one for `login`. The plain listener stays as it is.
        start_timeout: seconds until `start()` gives up.
    """

    kind: ClassVar[str]
    stop_timeout: ClassVar[float] = 60.0

    def __init__(
        self,
        *,
        login: str = "deploy",
        more_users: Mapping[str, str] | None = None,
        client_certs: bool = False,
        start_timeout: float = 120.0,
    ) -> None:
        self.login = login
        self.passcode = secrets.token_hex(12)
        self.users = {login: self.passcode, **(more_users or {})}
        self.client_certs = client_certs
        self.start_timeout = start_timeout
        self._run = current_run()
        self.mark = f"{self._run.mark}.{self.kind}-{secrets.token_hex(4)}"
        self._leases: list[PortLease] = []
        self.port = self._lease_port()
        self.tls_port = self._lease_port()
        self.directory = self._run.new_directory(self.kind)
        self._make_certificates()
        self._console = self.directory / "console.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._configured = False
        self._closed = False

    @property
    def address(self) -> str:
        """Address of the plain listener, login included."""
        return f"stomp://{self.login}:{self.passcode}@{_HOST}:{self.port}"

    @property
    def tls_address(self) -> str:
        """Address of the TLS listener, login included (not with `client_certs`); verify with `ca_file`."""
        credentials = "" if self.client_certs else f"{self.login}:{self.passcode}@"
        return f"stomp+ssl://{credentials}{_HOST}:{self.tls_port}"

    @property
    def ca_file(self) -> Path:
        """PEM file of the CA that signed the server's certificate."""
        return self.authority.ca_file

    @property
    def pid(self) -> int | None:
        """Process id of the server itself while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> Self:
        """Start and wait for logins to work. Does nothing if it runs already."""
        if self._closed:
            raise BrokerFailed(f"{self.kind} was closed and its data removed; make a new one")
        if self.pid is not None:
            return self
        if not self._configured:
            self._configure()
            self._configured = True
        try:
            self._start_companions()
            self._process = self._spawn(self._command(), self._environment())
            self._wait_until_ready()
        except BaseException:
            self._end_everything()
            raise
        return self

    def stop(self) -> None:
        """Stop in good order (SIGTERM); data, ports and logins stay for the next `start()`."""
        process, self._process = self._process, None
        if process is None:
            self._end_everything()
            return
        late = False
        self.thaw()  # a frozen server would never see the TERM, and waits long for frozen helpers
        process.terminate()
        try:
            process.wait(self.stop_timeout)
        except subprocess.TimeoutExpired:
            late = True
            process.kill()
            process.wait(30)
        tail = self.log_tail()
        self._end_everything()
        if late:
            raise BrokerFailed(f"{self.kind} took more than {self.stop_timeout:.0f} s to stop\n{tail}")

    def kill9(self) -> None:
        """Kill the server with SIGKILL, as a crash would: no flush, no goodbye."""
        if self._process is None:
            raise BrokerFailed(f"{self.kind} does not run")
        self._process.kill()
        self._process.wait(30)
        self._process = None
        self._end_everything()

    def renew_certificates(self) -> None:
        """Make a new authority and certificates of it in the place of the old ones; the next `start()` takes them."""
        self._make_certificates()
        if self._configured:
            self._write_stores()

    def sync_declared(self) -> None:
        """Return when everything that was confirmed so far outlives `kill9`; on most brokers that is so anyway."""
        if self._process is None:
            raise BrokerFailed(f"{self.kind} does not run")

    def restart(self) -> None:
        """`stop()` if it runs, then `start()`."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP every process: connections stay open and nobody reads or answers."""
        signal_marked(self.mark, signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze()`."""
        signal_marked(self.mark, signal.SIGCONT)

    def close(self) -> None:
        """End it, give the ports back and remove its data."""
        if self._closed:
            return
        self._closed = True
        try:
            self.stop()
        finally:
            for lease in self._leases:
                lease.release()
            self._run.remove_directory(self.directory)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def connect(
        self,
        *,
        login: str | None = None,
        passcode: str | None = None,
        tls: bool = False,
        timeout: float = 30.0,
        **headers: str,
    ) -> RawStomp:
        """Return a raw connection that is logged in (`RawStompError` if refused)."""
        context = self.authority.client_context(self.client_identity) if tls else None
        raw = RawStomp(self.tls_port if tls else self.port, host=_HOST, tls=context, timeout=timeout)
        try:
            if tls and self.client_certs and login is None:
                raw.connect(**headers)
            else:
                raw.connect(login or self.login, self.passcode if passcode is None else passcode, **headers)
        except BaseException:
            raw.close()
            raise
        return raw

    def processes(self) -> list[int]:
        """Pids of everything that was started for this broker and lives."""
        return marked_processes(self.mark)

    def listeners(self) -> set[tuple[str, int]]:
        """(address, port) of every TCP socket that its processes listen on."""
        return listening_addresses(self.processes())

    def log_tail(self, lines: int = 100) -> str:
        """The last lines of console and log files."""
        parts: list[str] = []
        for path in [self._console, *self._log_files()]:
            if path.exists() and (text := path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]):
                parts += [f"--- {path.name}", *(_COLOUR.sub("", line) for line in text)]
        return "\n".join(parts) or "(no log was written)"

    @abstractmethod
    def _configure(self) -> None:
        """Write the configuration files, once."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the server's argv."""

    @abstractmethod
    def _environment(self) -> dict[str, str]:
        """Return the server's environment, without the mark."""

    @abstractmethod
    def _log_files(self) -> list[Path]:
        """Return the log files written by the server itself."""

    def _make_certificates(self) -> None:
        self.authority = Authority(self.directory / "tls", name=f"{self.mark} CA")
        self.server_identity: Identity = self.authority.server()
        self.client_identity: Identity | None = self.authority.client(self.login) if self.client_certs else None

    def _write_stores(self) -> None:  # noqa: B027 - most servers read PEM
        """Write the certificates in a form of the server's own."""

    def _start_companions(self) -> None:  # noqa: B027 - most servers need none
        """Start what the server needs beside it."""

    def _lease_port(self) -> int:
        lease = PortLease()
        self._leases.append(lease)
        return lease.port

    def _spawn(self, command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with self._console.open("ab") as console:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env={**environment, MARK_VARIABLE: self.mark},
                start_new_session=True,  # the terminal's Ctrl-C must not reach it before the test's clean-up does
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.start_timeout
        reason = "nothing was tried"
        for tls in (False, True):
            while True:
                if self._process is None or self._process.poll() is not None:
                    code = self._process.returncode if self._process else None
                    raise BrokerFailed(f"{self.kind} ended at once, exit code {code}\n{self.log_tail()}")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise BrokerFailed(
                        f"{self.kind} was not ready in {self.start_timeout:.0f} s ({reason})\n{self.log_tail()}"
                    )
                try:
                    self.connect(tls=tls, timeout=min(left, 5.0)).close()
                    break
                except (OSError, RawStompError) as error:
                    reason = f"{'TLS' if tls else 'plain'} listener: {error}"
                    time.sleep(0.05)

    def _end_everything(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None
        if left := end_marked(self.mark):
            raise BrokerFailed(f"{self.kind}: processes {left} could not be ended")
