"""An HTTP server in a thread: uvicorn on a socket of ours. For the console and the webhook receiver.

    listener = SharedListener(parse_listen_address("127.0.0.1:0"), setting="[web] listen")
    with WebServer(app, listener) as server:
        print(server.url)

Rules:

* It owns no signal handler, and configures no logger.
* `X-Forwarded-*` count for nothing: who the peer is, and over which scheme it came, is what the socket says.
* Its end takes 3 s at most, with streams open, too. A view that hangs is left behind in its thread.
* It never ends alone: where its thread fails, `failure` says why.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Final, Self

import attrs
import uvicorn
from starlette.types import ASGIApp

from deploykit.daemons.service.throttle import LogThrottle
from deploykit.errors import WebError
from deploykit.system.threads import has_ended
from deploykit.web.listener import SharedListener
from deploykit.web.protocol import ARRIVAL, DeadlineProtocol

_log = logging.getLogger(__name__)

#: Seconds to start, for answers that are being made when it ends, and for its thread to end after that.
_START: Final = 10.0
_GRACE: Final = 2
_JOIN: Final = 0.7


@attrs.frozen(kw_only=True, slots=True)
class ServerLimits:
    """What a peer may take.

    Args:
        connections: at a time; further ones get 503, many more are dropped.
        head: bytes of a request's line and headers.
        keep_alive: seconds without a request; longer than those of a proxy before it, which would hit closed ones.
        arrival: seconds for a request to arrive whole.
    """

    connections: int = 500
    head: int = 16 << 10
    keep_alive: int = 75
    arrival: float = ARRIVAL


class WebServer:
    """Serves an application. A context manager: leaving it ends the server and lets go of the listener.

    Args:
        app: an ASGI application; of its lifespan, a failing startup is an error of `start`.
        listener: where; the server closes it.
        limits: what a peer may take.
        on_ending: called first when it ends, in the thread that ends it: wake what would hold up answers.
    """

    def __init__(
        self,
        app: ASGIApp,
        listener: SharedListener,
        *,
        limits: ServerLimits = ServerLimits(),
        on_ending: Callable[[], None] = lambda: None,
    ) -> None:
        self._listener = listener
        self._on_ending = on_ending
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._ended = False
        protocol = type("Protocol", (DeadlineProtocol,), {"arrival": limits.arrival, "refused": LogThrottle()})
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="on",
            interface="asgi3",
            log_config=None,
            log_level="error",  # else each malformed request of a stranger writes a line
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=limits.connections,
            backlog=256,
            timeout_keep_alive=limits.keep_alive,
            timeout_graceful_shutdown=_GRACE,
            h11_max_incomplete_event_size=limits.head,
        )
        self._server = _Server(config, self._started.set)
        self._thread = threading.Thread(target=self._run, name="deploykit-http", daemon=True)

    @property
    def url(self) -> str:
        """Where people find it; for a UNIX socket its address in the form of the settings."""
        return self._listener.url

    @property
    def failure(self) -> str:
        """Why it serves no more; empty while it does, and after `close`."""
        if self._ended or not has_ended(self._thread):
            return ""
        return f"the server at {self.url} has ended: {self._error!r}"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._server.server_state.connections)

    def start(self) -> None:
        """Serve from now on.

        Raises:
            WebError: the application does not start.
        """
        self._thread.start()
        end = time.monotonic() + _START
        while not self._started.wait(0.05):
            if not self._thread.is_alive() or time.monotonic() > end:
                error = self._error
                self.close()
                raise WebError(
                    f"cannot serve at {self.url}: {'it does not start' if error is None else error!r}",
                    "the log says more",
                )

    def close(self) -> None:
        """Stop: no new connection, open answers are finished for 2 s, streams are ended."""
        if self._ended:
            return
        self._ended = True
        try:
            if self._thread.ident is not None:
                self._on_ending()
                self._server.should_exit = True
                self._thread.join(_GRACE + _JOIN)
                if self._thread.is_alive():
                    _log.warning("a request at %s does not end: its thread is left behind", self.url)
        finally:
            self._listener.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 -- SystemExit too, of a failing startup: `failure` shows it
            self._error = error
            if not self._ended:
                _log.error("the server at %s has ended", self.url, exc_info=error)

    async def _serve(self) -> None:
        copy = self._listener.socket()
        try:
            await self._server.serve([copy])
        finally:
            copy.close()
            for connection in list(self._server.server_state.connections):
                connection.transport.abort()
            await asyncio.sleep(0)


class _Server(uvicorn.Server):
    """uvicorn's server, which reports that it listens.

    Args:
        on_started: called then.
    """

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen."""
        await super().startup(sockets)
        self._on_started()
