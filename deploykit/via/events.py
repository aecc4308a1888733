"""The console's event stream, read beside what waits for it: an event says that something may have changed.

Rules:

* A hint, never the truth: whoever waits looks at the thing itself, and looks now and then without any hint.
* The thread ends with `close`, and never raises: a stream that broke off is opened again.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlencode

from deploykit.via.client import PREFIX, ConsoleClient

#: Seconds without a byte after which a stream is dead: a comment comes every 15.
_SILENCE: Final = 40.0
_AGAIN: Final = 2.0
_LONGEST_LINE: Final = 64 << 10


class EventWatcher:
    """Watches the events of a site. Use it as a context manager.

    Args:
        client: of the console.
        site: whose rollouts are watched.
    """

    def __init__(self, client: ConsoleClient, site: str) -> None:
        self._client = client
        self._target = f"{PREFIX}/events?{urlencode({'topics': 'deploy,step,log', 'site': site})}"
        self._changed = threading.Event()
        self._ended = threading.Event()
        self._connection: http.client.HTTPConnection | None = None
        self._thread = threading.Thread(target=self._run, name="deploykit-via-events", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):  # it broke off by itself
                connection.sock.shutdown(socket.SHUT_RDWR)

    def wait(self, seconds: float) -> bool:
        """Return whether an event came, waiting so long for one at most; it is then forgotten."""
        came = self._changed.wait(seconds)
        if came:
            self._changed.clear()
        return came

    def _run(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError, ValueError, http.client.HTTPException):  # it is opened again
                self._read()
            self._ended.wait(_AGAIN)

    def _read(self) -> None:
        server = self._client.server
        if server.context is not None:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                server.host, server.port, timeout=_SILENCE, context=server.context
            )
        else:
            connection = http.client.HTTPConnection(server.host, server.port, timeout=_SILENCE)
        self._connection = connection
        with contextlib.closing(connection):
            headers = {"Accept": "text/event-stream", "Host": server.host_header, **dict(self._client.headers)}
            connection.request("GET", self._target, headers=headers)
            response = connection.getresponse()
            if response.status != 200:
                return
            self._changed.set()  # what happened before the stream began was not heard
            while not self._ended.is_set() and (line := response.readline(_LONGEST_LINE)):
                if line.startswith(b"event:"):
                    self._changed.set()


__all__ = ["EventWatcher"]
