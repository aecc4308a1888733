"""The HTTP side of a stub server: reads a request, and sends the answer or goes wrong as a fault says."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import sys
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Literal, Protocol
from urllib.parse import parse_qsl

import attrs

from tests.support.wait import wait_until

FaultKind = Literal["never", "close", "middle", "huge", "drip", "trickle", "status", "location", "garbage"]
_GIGABYTE: Final = 1 << 30
_CHUNK: Final = b"x" * 65536


@attrs.define(kw_only=True)
class Fault:
    """What goes wrong with the next requests that match.

    Args:
        kind: `never` no answer; `close` the connection closes instead of an answer; `middle` it closes in the middle of
            the body; `huge` 1 GB of body; `drip` a header that comes a byte every 50 ms, `trickle` such a body;
            `status` another answer; `location` another Location; `garbage` no HTTP.
        carried_out: whether Jenkins does what was asked all the same.
    """

    kind: FaultKind
    method: str = ""
    path: str = ""
    times: int = 1
    carried_out: bool = True
    status: int = 500
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    location: str = ""


@attrs.define(kw_only=True)
class Seen:
    """One request that arrived."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    form: Mapping[str, str]
    body: bytes = b""
    status: int = 0


@attrs.define(kw_only=True)
class Reply:
    """An answer to be sent."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = attrs.field(factory=dict)


class Site(Protocol):
    """What answers, and what goes wrong."""

    seen: list[Seen]
    sent_bytes: int

    def reply(self, seen: Seen) -> Reply:
        """Return the answer to a request, after doing what it asks."""

    def take_fault(self, seen: Seen) -> Fault | None:
        """Return the fault that applies to a request."""


class StubServer(ThreadingHTTPServer):
    """Listens on a loopback port; 0: any."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, site: Site, tls: ssl.SSLContext | None = None) -> None:
        self.site = site
        self.ended = threading.Event()
        self.errors: list[BaseException | None] = []
        self._tls = tls
        self._open: set[socket.socket] = set()
        self._handlers: list[threading.Thread] = []
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        """Take the port; one that it had before it may have to wait for.

        A program that another thread is just starting has a copy of the old listening socket until it is executed.
        """
        wait_until(self._bound, "the port")

    def _bound(self) -> bool:
        try:
            super().server_bind()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a connection in a thread that `end` joins."""
        self._open.add(request)
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        self._handlers = [handler for handler in self._handlers if handler.is_alive()] + [thread]
        thread.start()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands on the connection's own thread."""
        if self._tls is None:
            super().finish_request(request, client_address)
            return
        with contextlib.suppress(OSError), self._tls.wrap_socket(request, server_side=True) as wrapped:
            self._open.add(wrapped)
            super().finish_request(wrapped, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a peer that went away; keep any other error for `end`."""
        error = sys.exception()
        if not isinstance(error, OSError):
            self.errors.append(error)

    def end(self) -> None:
        """Stop listening and cut every connection."""
        self.ended.set()
        self.shutdown()
        self.server_close()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._handlers:
            thread.join(30)
        assert self.errors == []


class _Handler(BaseHTTPRequestHandler):
    server: StubServer
    protocol_version = "HTTP/1.1"
    timeout = 60

    def handle_one_request(self) -> None:
        """Answer one request; the connection closes after it."""
        self.close_connection = True
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        form = {}
        if (self.headers.get("Content-Type") or "").startswith("application/x-www-form-urlencoded"):
            form = dict(parse_qsl(body.decode(), keep_blank_values=True))
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(method=self.command, path=path, query=query, headers=headers, form=form, body=body)
        site = self.server.site
        fault = site.take_fault(seen)
        reply = site.reply(seen) if fault is None or fault.carried_out else Reply(status=200)
        seen.status = reply.status
        site.seen.append(seen)
        with contextlib.suppress(OSError):
            self._send(reply, fault)

    def _send(self, reply: Reply, fault: Fault | None) -> None:
        match fault.kind if fault else "":
            case "never":
                self.server.ended.wait(60)
                return
            case "close":
                return
            case "status":
                assert fault is not None
                reply = Reply(status=fault.status, body=fault.body, headers=dict(fault.headers))
            case "location":
                assert fault is not None
                reply.headers["Location"] = fault.location
            case "garbage":
                self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
                return
        length = {"middle": len(reply.body) + 1000, "huge": _GIGABYTE, "trickle": _GIGABYTE}.get(
            fault.kind if fault else "", len(reply.body)
        )
        self.send_response(reply.status)
        for name, value in {
            "X-Jenkins": "2.440.3",
            **reply.headers,
            "Content-Length": str(length),
            "Connection": "close",
        }.items():
            self.send_header(name, value)
        if fault is not None and fault.kind in ("drip", "trickle"):
            if fault.kind == "trickle":
                self.end_headers()
            self._drip()
            return
        self.end_headers()
        if fault is not None and fault.kind == "huge":
            self._flood()
        self.wfile.write(reply.body)

    def _drip(self) -> None:
        """Send what never ends, a byte at a time."""
        self.flush_headers()
        while not self.server.ended.wait(0.05):
            self.wfile.write(b"X")

    def _flood(self) -> None:
        while self.server.site.sent_bytes < _GIGABYTE and not self.server.ended.is_set():
            self.wfile.write(_CHUNK)
            self.server.site.sent_bytes += len(_CHUNK)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""
