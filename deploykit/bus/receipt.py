"""How a caller waits for the outcome of messages: one, as a future, or many at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from deploykit.errors import BusError, UsageError

#: A caller waits so many seconds longer than the time given, for the supervisor to end first and give the reason.
GRACE: Final = 1.0


class Receipt(Future[None]):
    """The future of a message: it ends with the broker's confirmation, and cannot be cancelled."""

    def cancel(self) -> bool:
        """Return False: the message is on its way."""
        return False

    def settle(self, error: BusError | None) -> None:
        """End the future, and call its callbacks."""
        before, _thread.answers = must_not_wait(), True
        try:
            if error is None:
                self.set_result(None)
            else:
                self.set_exception(error)
        finally:
            _thread.answers = before


_thread = threading.local()


def answers_here() -> None:
    """Note that the calling thread is the one that reads what the broker answers."""
    _thread.answers = True


def must_not_wait() -> bool:
    """Return whether the calling thread must not wait for an answer of the broker.

    It is the one that reads the answers; or it calls back with the outcome of a message that could not be written, and
    holds the lock that everybody needs who writes.
    """
    return getattr(_thread, "answers", False)


def check_may_wait(what: str) -> None:
    """Refuse to wait for the broker on a thread that would have to read its answer.

    Raises:
        UsageError: a callback of a future called.
    """
    if must_not_wait():
        raise UsageError(
            f"{what} was called by a callback of a future, on the thread that reads what the broker answers",
            "use publish_nowait() there, or leave it to a thread of yours",
        )


class Batch:
    """Waits for any number of messages at once: one lock for all of them, where a future each would cost more."""

    __slots__ = ("_lock", "_open", "_settled", "outcomes")

    def __init__(self) -> None:
        self.outcomes: list[BusError | None] = []
        self._settled = threading.Lock()  # held until the last one is settled
        self._settled.acquire()
        self._lock = threading.Lock()
        self._open = 1  # one for the maker, until all are named

    def expect(self) -> Callable[[BusError | None], None]:
        """Return what is to be called with the outcome of one more message."""
        index = len(self.outcomes)
        self.outcomes.append(None)
        with self._lock:
            self._open += 1

        def settle(error: BusError | None) -> None:
            if error is not None:
                self.outcomes[index] = error
            self._one_less()

        return settle

    def wait(self, timeout: float) -> bool:
        """Return whether every message is settled, waiting for the last. No more may be named after."""
        self._one_less()
        return self._settled.acquire(timeout=max(0.0, timeout))

    def _one_less(self) -> None:
        with self._lock:
            self._open -= 1
            if not self._open:
                self._settled.release()
