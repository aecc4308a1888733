"""The threads of a service: started together, ended together, and missed when one of them fails."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)


class ServiceThreads:
    """Threads that run until their function returns; what one raises is kept and logged.

    They are daemon threads: they may be cut off at any instant, and keep no process alive that should end.
    """

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._error: tuple[str, Exception] | None = None

    def add(self, name: str, run: Callable[[], None]) -> None:
        """Add a thread; `start` starts it."""

        def work() -> None:
            try:
                run()
            except Exception as error:  # noqa: BLE001 -- kept for `Service.check`
                _log.exception("the thread %s has failed", name)
                self._error = self._error or (name, error)

        self._threads.append(threading.Thread(target=work, name=f"deploykit-{name}", daemon=True))

    def start(self) -> None:
        """Start all threads."""
        for thread in self._threads:
            thread.start()

    def join(self, end: float) -> None:
        """Wait for all threads, until a monotonic time."""
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, end - time.monotonic()))

    @property
    def error(self) -> tuple[str, Exception] | None:
        """The name of the thread that failed first, and what it raised; None while none has."""
        return self._error
