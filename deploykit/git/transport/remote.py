"""Connections to an origin: TCP, a process (ssh, or git on a local repository), HTTP.

Rules:

* Every connection ends at the deadline: sockets have time-outs, processes are killed with their group.
* Credentials stay in files and helpers, never in a command line or an error.
* A process gets an allow-list of our environment.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from deploykit.errors import OriginError
from deploykit.git.transport.address import OriginUrl
from deploykit.git.transport.pktline import PacketReader, packet, printable
from deploykit.git.transport.protocol import OriginLink
from deploykit.settings.mirror import MirrorSettings
from deploykit.system import hosts
from deploykit.system.deadline import Deadline

_CHUNK: Final = 256 << 10
_GIT_PORT: Final = 9418
_ENVIRONMENT: Final = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "SSH_AUTH_SOCK", "XDG_CONFIG_HOME")
_STDERR_KEPT: Final = 4096


def open_link(address: OriginUrl, settings: MirrorSettings, deadline: Deadline) -> OriginLink:
    """Return a link to `address` that is not connected yet."""
    match address.scheme:
        case "git":
            return SocketLink(address, settings, deadline)
        case "file":
            return ProcessLink(_local_command(address), settings, deadline, address.shown)
        case "ssh":
            return ProcessLink(_ssh_command(address, settings), settings, deadline, address.shown)
        case _:
            from deploykit.git.transport.http import HttpLink

            return HttpLink(address, settings, deadline, run_helper=run_credential_helper)


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the part of our environment that a program we start gets."""
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return {"PATH": os.defpath, **kept, "LC_ALL": "C.UTF-8", **(extra or {})}


class SocketLink:
    """git://: one TCP connection."""

    stateless = False
    redirected = False

    def __init__(self, address: OriginUrl, settings: MirrorSettings, deadline: Deadline) -> None:
        self._address = address
        self._settings = settings
        self._deadline = deadline
        self._socket: socket.socket | None = None
        self._reader = PacketReader(self._receive, limit=settings.max_listing_bytes)

    def open(self, early: bytes) -> PacketReader:
        """Connect and request the repository."""
        address = self._address
        self._socket = connect(address.host, address.port or _GIT_PORT, self._settings, self._deadline)
        path = address.path[1:] if address.path.startswith("/~") else address.path
        host = f"{address.host}:{address.port}" if address.port else address.host
        hello = b"git-upload-pack %b\0host=%b\0\0version=2\0" % (path.encode(), host.encode("idna"))
        self._send(packet(hello) + early)
        return self._reader

    def request(self, body: bytes, *, version: int) -> PacketReader:
        """Send the next request on the same connection."""
        self._send(body)
        return self._reader

    def _send(self, data: bytes) -> None:
        _send_all(_connected(self._socket), data, self._deadline, lambda exc: _broken(self._address.shown, exc))

    def _receive(self) -> bytes:
        sock = _connected(self._socket)
        try:
            sock.settimeout(self._deadline.wait())
            return sock.recv(_CHUNK)
        except TimeoutError:
            raise self._deadline.passed() from None
        except OSError as exc:
            raise _broken(self._address.shown, exc) from exc

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()


class ProcessLink:
    """A program that speaks upload-pack on its standard input and output; both are one socket pair."""

    stateless = False
    redirected = False

    def __init__(self, argv: Sequence[str], settings: MirrorSettings, deadline: Deadline, shown: str) -> None:
        self._argv = argv
        self._deadline = deadline
        self._shown = shown
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = b""
        self._poll = select.poll()
        self._reader = PacketReader(self._receive, limit=settings.max_listing_bytes)

    def open(self, early: bytes) -> PacketReader:
        """Start the program."""
        ours, theirs = socket.socketpair()
        self._socket = ours
        try:
            self._process = subprocess.Popen(
                self._argv,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.PIPE,
                env=child_environment({"GIT_PROTOCOL": "version=2"}),
                start_new_session=True,
            )
        except OSError as exc:
            raise OriginError(f"cannot start {self._argv[0]}: {exc.strerror}", f"install {self._argv[0]}") from exc
        finally:
            theirs.close()
        self._poll.register(ours, select.POLLIN)
        if self._process.stderr is not None:
            os.set_blocking(self._process.stderr.fileno(), False)
            self._poll.register(self._process.stderr, select.POLLIN)
        if early:
            self._send(early)
        return self._reader

    def request(self, body: bytes, *, version: int) -> PacketReader:
        """Send the next request on the same connection."""
        self._send(body)
        return self._reader

    def _send(self, data: bytes) -> None:
        _send_all(_connected(self._socket), data, self._deadline, lambda _: self._failed())

    def _receive(self) -> bytes:
        sock = _connected(self._socket)
        while True:
            events = self._poll.poll(self._deadline.wait() * 1000 + 1)
            if not events:
                raise self._deadline.passed()
            for fd, _ in events:
                if fd != sock.fileno():
                    self._take_errors(fd)
                    continue
                try:
                    data = sock.recv(_CHUNK)
                except OSError:
                    data = b""
                if not data:
                    raise self._failed()
                return data

    def _take_errors(self, fd: int) -> None:
        try:
            text = os.read(fd, 65536)
        except BlockingIOError:
            return
        if not text:
            with contextlib.suppress(KeyError):
                self._poll.unregister(fd)
        self._errors = (self._errors + text)[-_STDERR_KEPT:]

    def _failed(self) -> OriginError:
        """Return the error for a program that ended too early, with what it wrote to standard error."""
        process = self._process
        if process is not None and process.stderr is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(min(1.0, self._deadline.left()))
            if not process.stderr.closed:
                self._take_errors(process.stderr.fileno())
        lines = [line for line in self._errors.splitlines() if line.strip()]
        reason = printable(b" / ".join(lines[-4:])) or "no reason given"
        return OriginError(f"{self._argv[0]} could not fetch from {self._shown}: {reason}")

    def close(self) -> None:
        """Kill the program and all it started."""
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            if self._process.stderr is not None:
                self._process.stderr.close()


def _send_all(sock: socket.socket, data: bytes, deadline: Deadline, failure: Callable[[OSError], Exception]) -> None:
    """Send all of it within the deadline; `failure` makes the error for a connection that broke."""
    try:
        sock.settimeout(deadline.wait())
        sock.sendall(data)
    except TimeoutError:
        raise deadline.passed() from None
    except OSError as exc:
        raise failure(exc) from exc


def _connected(sock: socket.socket | None) -> socket.socket:
    if sock is None:
        raise OriginError("not connected to the origin")
    return sock


def connect(host: str, port: int, settings: MirrorSettings, deadline: Deadline) -> socket.socket:
    """Return a TCP connection to the first of the host's addresses that answers; they share the time.

    Raises:
        OriginError: no address answers.
        DeadlineExceeded: not in time (looking the name up counts).
    """
    try:
        return hosts.connect(host, port, min(settings.connect_timeout, deadline.wait()))
    except socket.gaierror as exc:
        raise OriginError(f"cannot find the address of {host}: {exc.strerror or exc}", "check the name") from None
    except OSError as exc:
        deadline.left()
        reason = exc.strerror or str(exc)
        raise OriginError(
            f"cannot connect to {host} port {port}: {reason}", "check the address, and that it runs"
        ) from None


def _broken(shown: str, exc: OSError) -> OriginError:
    return OriginError(f"the connection to {shown} broke: {exc.strerror or exc}", "try again")


def _local_command(address: OriginUrl) -> list[str]:
    if shutil.which("git") is None:
        raise OriginError("a local origin needs the git program", "apt-get install git")
    return ["git", "upload-pack", "--", str(Path(address.path).expanduser().absolute())]


def _ssh_command(address: OriginUrl, settings: MirrorSettings) -> list[str]:
    options = ["BatchMode=yes", f"ConnectTimeout={max(1, round(settings.connect_timeout))}"]
    options += ["ServerAliveInterval=15", "ServerAliveCountMax=4", "SetEnv=GIT_PROTOCOL=version=2"]
    if settings.ssh_known_hosts is not None:
        options += [f"UserKnownHostsFile={settings.ssh_known_hosts}", "GlobalKnownHostsFile=/dev/null"]
        options += ["StrictHostKeyChecking=yes"]
    if settings.ssh_key is not None:
        options += ["IdentitiesOnly=yes", f"IdentityFile={settings.ssh_key}"]
    argv = ["ssh", "-x", "-T", *(f"-o{option}" for option in options)]
    if address.port:
        argv += ["-p", str(address.port)]
    if address.user:
        argv += ["-l", address.user]
    quoted = "'" + address.path.replace("'", "'\\''") + "'"
    return [*argv, "--", address.host, f"git-upload-pack {quoted}"]


def run_credential_helper(argv: Sequence[str], question: str, limit: float) -> str:
    """Return what a git credential helper's `get` prints.

    Raises:
        OriginError: it cannot be run, fails, or takes too long.
    """
    try:
        done = subprocess.run(
            [*argv, "get"],
            input=question.encode(),
            capture_output=True,
            timeout=limit,
            env=child_environment(),
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise OriginError(f"the credential helper {argv[0]} failed: {type(exc).__name__}", "run it by hand") from None
    return done.stdout.decode("utf-8", "replace")


def ssh_signature_problem(payload: bytes, signature: bytes, allowed_signers: Path, when: str) -> str:
    """Return why ssh-keygen refuses a git signature; empty when it is good.

    Args:
        when: the time of signing, as ssh-keygen's `verify-time`.

    Raises:
        OriginError: ssh-keygen cannot be run.
    """
    fd = os.memfd_create("signature")
    try:
        os.write(fd, signature)
        base = [f"-Overify-time={when}", "-f", str(allowed_signers), "-s", f"/proc/self/fd/{fd}"]
        found = _ssh_keygen(["-Y", "find-principals", *base], b"", fd)
        principals = [line for line in found.stdout.decode("utf-8", "replace").splitlines() if line.strip()]
        if found.returncode or not principals:
            return "its key is not among the allowed signers"
        for principal in principals:
            done = _ssh_keygen(["-Y", "verify", "-n", "git", "-I", principal, *base], payload, fd)
            if done.returncode == 0:
                return ""
        return printable(done.stderr or done.stdout) or "ssh-keygen refuses it"
    finally:
        os.close(fd)


def _ssh_keygen(arguments: Sequence[str], data: bytes, fd: int) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["ssh-keygen", *arguments],
            input=data,
            capture_output=True,
            pass_fds=(fd,),
            env=child_environment(),
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise OriginError(f"ssh-keygen: {type(exc).__name__}", "apt-get install openssh-client") from exc
