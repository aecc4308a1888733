"""One HTTP exchange: sent, answered, and over by a deadline whatever the server does.

Rules:

* One connection a request. No redirect is followed, no proxy is read from the environment.
* TLS is verified. Names are looked up with a deadline. Every wait counts against the whole.
* Of an answer only its beginning is kept; the rest is not read, so a server cannot fill our memory or our time. A
  caller who wants a large body takes it in pieces, and refuses what is too much.
* The outcome says whether the request may have reached the server.
"""

from __future__ import annotations

import contextlib
import http
import http.client
import io
import math
import socket
import ssl
from collections.abc import Callable, Collection
from pathlib import Path
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

import attrs

from deploykit._version import __version__
from deploykit.errors import SettingsError
from deploykit.httpclient.reply import HttpReply, HttpRequest, NoReply
from deploykit.system import hosts

#: Most of an answer that is kept where the caller does not say.
KEPT: Final = 64 << 10
_PIECE: Final = 256 << 10
_PORTS: Final = {"https": 443, "http": 80}


@attrs.frozen(kw_only=True, slots=True)
class HttpServer:
    """Where to connect.

    Args:
        shown: scheme, host and port, for people.
        context: None for plain http.
    """

    host: str
    port: int
    shown: str
    context: ssl.SSLContext | None = attrs.field(default=None, repr=False)
    connect_timeout: float = 10.0

    @classmethod
    def of(cls, url: str, *, ca_file: Path | None, connect_timeout: float) -> HttpServer:
        """Return the server of a URL that the settings have checked.

        Raises:
            SettingsError: `ca_file` cannot be used.
        """
        parts = urlsplit(url)
        context = _context(ca_file) if parts.scheme == "https" else None
        host = parts.hostname or ""
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        port = parts.port or _PORTS[parts.scheme]
        return cls(host=host, port=port, shown=shown, context=context, connect_timeout=connect_timeout)

    @property
    def host_header(self) -> str:
        """What the `Host` header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = _PORTS["https" if self.context else "http"]
        return host if self.port == usual else f"{host}:{self.port}"


def exchange(
    server: HttpServer,
    request: HttpRequest,
    *,
    seconds: float,
    kept: int = KEPT,
    bodiless: Collection[int] = (),
    sink: Callable[[bytes], object] | None = None,
    stall: float = math.inf,
) -> HttpReply | NoReply:
    """Send one request and return the answer, or why there is none, within `seconds`.

    Args:
        kept: bytes of the answer's body that are wanted at most.
        bodiless: statuses whose body is not waited for.
        sink: takes the body of an answer of status 200 in pieces, whatever its length; what it raises is raised.
        stall: seconds that the server may send nothing, where that is less than `seconds`.
    """
    end = monotonic() + seconds
    dialled = _dial(server, end)
    if isinstance(dialled, NoReply):
        return dialled
    with contextlib.closing(dialled):
        connection = http.client.HTTPConnection(server.host, server.port)
        connection.sock = _TimedSocket(dialled, end, stall)
        headers = {
            "Host": server.host_header,
            "User-Agent": f"deploykit/{__version__}",
            "Accept-Encoding": "identity",
            "Connection": "close",
            **dict(request.headers),
        }
        try:
            connection.request(request.method, request.target, body=request.body, headers=headers)
            response = connection.getresponse()
        except TimeoutError:
            return NoReply(
                sent=True,
                why=f"{server.shown} did not answer in {min(seconds, stall):.3g} s",
                remedy="look at the server, or raise timeout",
            )
        except (OSError, ValueError, http.client.HTTPException) as error:
            return NoReply(sent=True, why=f"{server.shown} {_broken(error)}", remedy="look at the server and its proxy")
        body, whole = b"", True
        if sink is not None and response.status == http.HTTPStatus.OK:
            whole = _pour(response, sink)
        elif response.status not in bodiless:
            body, whole = _read(response, kept)
    return HttpReply(status=response.status, headers=tuple(response.getheaders()), body=body, whole=whole)


def reach(server: HttpServer, *, seconds: float) -> NoReply | None:
    """Connect, TLS included, and close again without sending anything. Return why that failed, or None."""
    dialled = _dial(server, monotonic() + seconds)
    if isinstance(dialled, NoReply):
        return dialled
    dialled.close()
    return None


def _dial(server: HttpServer, end: float) -> socket.socket | NoReply:
    sock: socket.socket | None = None
    try:
        sock = hosts.connect(server.host, server.port, min(server.connect_timeout, _left(end)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if server.context is None:
            return sock
        sock = server.context.wrap_socket(sock, server_hostname=server.host, do_handshake_on_connect=False)
        sock.settimeout(min(server.connect_timeout, _left(end)))
        sock.do_handshake()
    except ssl.SSLCertVerificationError as error:
        why, remedy = f"has no trusted certificate: {error.verify_message}", "set ca_file to who signed it"
    except ssl.SSLError as error:
        why, remedy = f"does not speak TLS with us: {error.reason or 'broken off'}", "check scheme and port of url"
    except TimeoutError as error:
        why, remedy = f"cannot be reached: {error.strerror or error}", "check host, port and firewall"
    except socket.gaierror as error:
        why, remedy = f"has no address: {error.strerror}", "check the host in url, and the resolver"
    except (OSError, ValueError) as error:  # ValueError: a host that TLS takes for no name
        why = f"cannot be reached: {getattr(error, 'strerror', None) or error}"
        remedy = "check host and port of url, and whether the server runs"
    else:
        return sock
    if sock is not None:
        sock.close()
    return NoReply(sent=False, why=f"{server.shown} {why}", remedy=remedy)


def _read(response: http.client.HTTPResponse, kept: int) -> tuple[bytes, bool]:
    """Return the beginning of the body, and whether that is all. What breaks off here is an answer nevertheless."""
    body = bytearray()
    try:
        while len(body) <= kept:
            piece = response.read1(min(KEPT, kept + 1 - len(body)))
            if not piece:
                return bytes(body), not response.length
            body += piece
    except (OSError, ValueError, http.client.HTTPException):
        return bytes(body[:kept]), False
    return bytes(body[:kept]), False


def _pour(response: http.client.HTTPResponse, sink: Callable[[bytes], object]) -> bool:
    """Hand the body over in pieces; return whether all of it came."""
    while True:
        try:
            piece = response.read1(_PIECE)
        except (OSError, ValueError, http.client.HTTPException):
            return False
        if not piece:
            return not response.length
        sink(piece)


def _broken(error: Exception) -> str:
    if isinstance(error, http.client.RemoteDisconnected):
        return "closed the connection without an answer"
    if isinstance(error, OSError):
        return f"broke off: {error.strerror or type(error).__name__}"
    return "sent what is not HTTP"  # the text of such an error holds what was sent


def _left(end: float) -> float:
    left = end - monotonic()
    if left <= 0:
        raise TimeoutError("no time is left")
    return left


def _context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or "no certificates in it"
        raise SettingsError(f"cannot use ca_file {ca_file}: {reason}", "give PEM certificates") from None
    context.set_alpn_protocols(["http/1.1"])
    return context


class _TimedSocket:
    """What `http.client` uses of a socket. Each call may take what is left until `end`, and no more than `stall`.

    Closing is the owner's job.
    """

    def __init__(self, sock: socket.socket, end: float, stall: float) -> None:
        self._sock = sock
        self._end = end
        self._stall = stall

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(min(self._stall, _left(self._end)))
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._sock, self._end, self._stall))

    def close(self) -> None:
        pass


class _TimedReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, end: float, stall: float) -> None:
        super().__init__()
        self._sock = sock
        self._end = end
        self._stall = stall

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed: WriteableBuffer
        self._sock.settimeout(min(self._stall, _left(self._end)))
        return self._sock.recv_into(buffer)


__all__ = ["KEPT", "HttpServer", "exchange", "reach"]
