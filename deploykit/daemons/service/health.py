"""The pages of a daemon: `/live`, `/ready` and `/metrics`, served by one thread to a few callers at a time.

Rules:

* One connection, one request, one answer. A request has a deadline and a limit on its size.
* So many connections at most. A further one replaces the one that has waited longest.
* `/live` asks for a restart where it fails: something does not go on. `/ready` says what stops the work.
* A page never waits for the bus, and costs it nothing: it reads what the services keep anyway.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol, Self

from deploykit.daemons.service.listeningsocket import ListeningSocket
from deploykit.daemons.service.pagehttp import MAX_HEAD, Page, PageRequest, answer_bytes, read_request
from deploykit.daemons.service.throttle import KeyedThrottle
from deploykit.settings.service import PagesAddress

_log = logging.getLogger(__name__)

#: Connections at a time, and seconds that one may take.
MAX_CONNECTIONS: Final = 8
DEADLINE: Final = 5.0
#: Seconds that an answered caller has to read the answer and to close.
_LINGER: Final = 2.0
#: Seconds without accepting where the process has no descriptor left.
_REST: Final = 1.0
_JOIN: Final = 5.0

_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_NO_CLIENT: Final = "prometheus-client is not installed: pip install 'deploykit[metrics]'"


class HealthProbe(Protocol):
    """What the pages ask. Called in the pages' thread: it must return at once."""

    def stuck(self) -> Sequence[str]:
        """Return what does not go on and never will without a restart, one line each."""
        ...

    def problems(self) -> Sequence[str]:
        """Return what stops the work, one line each: no connection, no subscription, no key to trust …"""
        ...

    def notes(self) -> Sequence[str]:
        """Return what a person should know although the work goes on, one line each."""
        ...


class Exposition(Protocol):
    """What shows the metrics."""

    def exposition(self) -> bytes | None:
        """Return them as text; None where what writes them is not installed."""
        ...


def page_of(path: str, probe: HealthProbe, metrics: Exposition) -> Page:
    """Return the page at a path."""
    match path:
        case "/live":
            stuck = probe.stuck()
            return Page.of_lines(503, *stuck) if stuck else Page.of_lines(200, "alive")
        case "/ready":
            problems = probe.problems()
            return Page.of_lines(503, *problems) if problems else Page.of_lines(200, "ready", *probe.notes())
        case "/metrics":
            text = metrics.exposition()
            return Page.of_lines(501, _NO_CLIENT) if text is None else Page(200, text, _METRICS_TYPE)
    return Page.of_lines(404, "there are /live, /ready and /metrics")


class _Caller:
    """One connection: what it sent, what it is still to get, and until when."""

    __slots__ = ("answered", "deadline", "received", "socket", "to_send")

    def __init__(self, connection: socket.socket, now: float) -> None:
        self.socket = connection
        self.received = b""
        self.to_send = memoryview(b"")
        self.answered = False
        self.deadline = now + DEADLINE


class HealthServer:
    """Serves the pages of a process, over all reloads of its settings. A context manager; starts with `listen`.

    Args:
        probe: what `/live` and `/ready` ask.
        metrics: what `/metrics` shows.
        clock: monotonic seconds.
    """

    def __init__(self, probe: HealthProbe, metrics: Exposition, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._probe = probe
        self._metrics = metrics
        self._clock = clock
        self._lock = threading.Lock()
        self._wanted: PagesAddress | None = None
        self._listener: ListeningSocket[PagesAddress] | None = None
        self._loop: _Loop | None = None

    @property
    def address(self) -> PagesAddress | None:
        """Where the pages are now, with the port that was taken for port 0; None where nowhere."""
        listener = self._listener
        return listener.address if listener is not None else None

    def listen(self, address: PagesAddress | None) -> None:
        """Serve the pages at an address from now on; None: nowhere. At the same address nothing is interrupted.

        Raises:
            UsageError: it cannot listen there. The pages stay where they were.
        """
        with self.opening(address):
            pass

    @contextlib.contextmanager
    def opening(self, address: PagesAddress | None) -> Iterator[None]:
        """Serve the pages at an address once the body of the `with` has ended without an error.

        Raises:
            UsageError: it cannot listen there; the body does not begin.
        """
        with self._lock:
            if address == self._wanted:
                yield
                return
            opened = ListeningSocket(address) if address is not None else None
            try:
                yield
            except BaseException:
                if opened is not None:
                    opened.close()
                raise
            self._replace(address, opened)

    def _replace(self, address: PagesAddress | None, opened: ListeningSocket[PagesAddress] | None) -> None:
        before, self._loop = self._loop, None
        if before is not None:
            before.stop()
        if self._listener is not None:
            self._listener.close()
        self._wanted, self._listener = address, opened
        if opened is not None:
            self._loop = _Loop(opened.socket, self._page, self._clock)
            self._loop.start()
            _log.info("pages /live, /ready and /metrics at %s", opened.address)

    def close(self) -> None:
        """Stop serving."""
        self.listen(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _page(self, path: str) -> Page:
        return page_of(path, self._probe, self._metrics)


class _Loop(threading.Thread):
    """The thread that accepts, reads and answers."""

    def __init__(self, listener: socket.socket, page: Callable[[str], Page], clock: Callable[[], float]) -> None:
        super().__init__(name="deploykit-pages", daemon=True)
        self._listener = listener
        self._page = page
        self._clock = clock
        self._failures = KeyedThrottle()
        self._callers: dict[int, _Caller] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        self._selector.register(listener, selectors.EVENT_READ)
        self._accept_again: float | None = None
        self._stopping = False

    def stop(self) -> None:
        """End the thread, and every connection. The listening socket stays open."""
        self._stopping = True
        os.write(self._wake_writer, b"x")
        self.join(_JOIN)
        if not self.is_alive():  # else it still uses them: a page hangs
            os.close(self._wake_reader)
            os.close(self._wake_writer)

    def run(self) -> None:
        """Serve until `stop`."""
        try:
            while not self._stopping:
                self._step()
        except Exception:  # noqa: BLE001 -- a bug here must not cost the daemon; callers are refused from now on
            _log.exception("the pages have ended")
            with contextlib.suppress(OSError):  # it is closed already
                self._listener.shutdown(socket.SHUT_RDWR)
        finally:
            for caller in list(self._callers.values()):
                self._end(caller)
            self._selector.close()

    def _step(self) -> None:
        for key, _ in self._selector.select(self._timeout()):
            if key.fd == self._listener.fileno():
                self._accept()
            elif (caller := self._callers.get(key.fd)) is not None:
                self._serve(caller)
        now = self._clock()
        for caller in [each for each in self._callers.values() if each.deadline <= now]:
            self._end(caller)
        if self._accept_again is not None and self._accept_again <= now:
            self._accept_again = None
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _timeout(self) -> float | None:
        times = [caller.deadline for caller in self._callers.values()]
        if self._accept_again is not None:
            times.append(self._accept_again)
        return max(0.0, min(times) - self._clock()) if times else None

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return
        except OSError as error:  # no descriptor left: without a rest this would go round and round
            if self._failures.due("accept", self._clock()):
                _log.warning("pages: cannot accept a connection: %s", error.strerror)
            self._selector.unregister(self._listener)
            self._accept_again = self._clock() + _REST
            return
        if len(self._callers) >= MAX_CONNECTIONS:
            self._end(min(self._callers.values(), key=lambda each: each.deadline))
        connection.setblocking(False)
        caller = self._callers[connection.fileno()] = _Caller(connection, self._clock())
        self._selector.register(connection, selectors.EVENT_READ)
        self._serve(caller)  # the request has usually come with the connection

    def _serve(self, caller: _Caller) -> None:
        try:
            if caller.to_send:
                self._send(caller)
            else:
                self._receive(caller)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # the caller is gone
            self._end(caller)

    def _receive(self, caller: _Caller) -> None:
        block = caller.socket.recv(MAX_HEAD + 1)
        if not block:
            self._end(caller)
        elif not caller.answered:  # else what follows the request: read, so that the end of the connection is clean
            caller.received += block
            asked = read_request(caller.received)
            if asked is not None:
                self._answer(caller, asked)

    def _answer(self, caller: _Caller, asked: PageRequest | Page) -> None:
        caller.received, caller.answered = b"", True
        if isinstance(asked, Page):
            answer = answer_bytes(asked)
        else:
            answer = answer_bytes(self._made(asked.path), head_only=asked.head_only)
        caller.to_send = memoryview(answer)
        self._selector.modify(caller.socket, selectors.EVENT_WRITE)
        self._send(caller)

    def _made(self, path: str) -> Page:
        try:
            return self._page(path)
        except Exception as error:  # noqa: BLE001 -- this page says so, and the next one may be made
            if self._failures.due((path, type(error)), self._clock()):
                _log.exception("cannot make the page %s", path)
            return Page.of_lines(500, f"{type(error).__name__}; see the log")

    def _send(self, caller: _Caller) -> None:
        caller.to_send = caller.to_send[caller.socket.send(caller.to_send) :]
        if not caller.to_send:
            caller.socket.shutdown(socket.SHUT_WR)
            caller.deadline = min(caller.deadline, self._clock() + _LINGER)
            self._selector.modify(caller.socket, selectors.EVENT_READ)

    def _end(self, caller: _Caller) -> None:
        if self._callers.pop(caller.socket.fileno(), None) is not None:
            with contextlib.suppress(KeyError, ValueError):  # not registered any more
                self._selector.unregister(caller.socket)
        caller.socket.close()
