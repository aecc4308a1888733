"""Stand-ins for tests of code that uses deploykit: for faults that a real broker will not show on demand.

`FakeBus` has the publishing half of `deploykit.bus.Bus`, without a network. What a broker would do is said by the test:

    >>> from deploykit.wire.frame import Frame
    >>> bus = FakeBus()
    >>> bus.publish("/topic/a", Frame({}, b"one"))
    >>> [sent.destination for sent in bus.sent]
    ['/topic/a']
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from time import monotonic

import attrs

from deploykit.errors import BusClosed, BusError, PublishError, WindowFull
from deploykit.wire.frame import Frame


@attrs.frozen(slots=True)
class Sent:
    """One message that was handed to the bus, and the future its publisher holds."""

    destination: str
    frame: Frame
    future: Future[None] = attrs.field(repr=False, eq=False)


class FakeBus:
    """A bus whose broker is the test. Safe to use from several threads.

    Args:
        answer: called for each message, on the publisher's thread; its result is the broker's answer: None for a
            receipt, an exception for a refusal, `FakeBus.SILENCE` for no answer until `confirm` or `fail`.
        window: most messages that may wait for an answer; None: any number.
    """

    #: No answer yet.
    SILENCE = object()

    def __init__(self, answer: Callable[[Sent], object] = lambda _: None, *, window: int | None = None) -> None:
        self.answer = answer
        self.window = window
        self.sent: list[Sent] = []
        self.waiting: list[Sent] = []
        self._changed = threading.Condition()
        self._connected = True
        self._closed = False

    # -- what `Bus` has ----------------------------------------------------------------------------------------------

    def publish_nowait(self, destination: str, frame: Frame) -> Future[None]:
        """Take a message, or raise `WindowFull` at once; see `Bus.publish_nowait`."""
        if self._closed:
            raise BusClosed("the bus is closed")
        sent = Sent(destination, frame, Future())
        with self._changed:
            if self.window is not None and len(self.waiting) >= self.window:
                raise WindowFull(f"{len(self.waiting)} messages wait for an answer: no room, not sent")
            self.sent.append(sent)
            answer = self.answer(sent)
            if answer is self.SILENCE:
                self.waiting.append(sent)
            self._changed.notify_all()
        if isinstance(answer, BaseException):
            sent.future.set_exception(answer)
        elif answer is not self.SILENCE:
            sent.future.set_result(None)
        return sent.future

    def publish(self, destination: str, frame: Frame, *, timeout: float = 10.0) -> None:
        """Take a message, waiting for room and for the answer; see `Bus.publish`."""
        end = monotonic() + timeout
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self.window is None or len(self.waiting) < self.window, timeout
            )
        try:
            self.publish_nowait(destination, frame).result(max(0.0, end - monotonic()))
        except TimeoutError:
            raise PublishError(f"no receipt for a message to {destination} in {timeout} s") from None

    def wait_connected(self, timeout: float) -> bool:
        """Tell whether the broker is there, waiting for it."""
        with self._changed:
            connected = self._changed.wait_for(lambda: self._connected or self._closed, timeout)
        if self._closed:
            raise BusClosed("the bus is closed")
        return connected

    # -- what the test says ------------------------------------------------------------------------------------------

    @property
    def bodies(self) -> list[bytes]:
        """The bodies of all messages handed over, in order."""
        return [sent.frame.body for sent in self.sent]

    def wait_sent(self, number: int, timeout: float = 10.0) -> None:
        """Wait until `number` messages were handed over.

        Raises:
            AssertionError: it took too long.
        """
        with self._changed:
            ok = self._changed.wait_for(lambda: len(self.sent) >= number, timeout)
        if not ok:
            raise AssertionError(f"{len(self.sent)} messages after {timeout} s, not {number}")

    def confirm(self, number: int | None = None) -> None:
        """Give the receipts of the first `number` messages that wait for one; of all by default."""
        for sent in self._take(number):
            sent.future.set_result(None)

    def fail(self, error: BusError, number: int | None = None) -> None:
        """Fail the first `number` messages that wait for a receipt; all by default."""
        for sent in self._take(number):
            sent.future.set_exception(error)

    def respond(self, answer: Callable[[Sent], object]) -> None:
        """Give every message that waits the answer of `answer`, in order; what comes later gets it too."""
        self.answer = answer
        for sent in self._take(None):
            result = answer(sent)
            if isinstance(result, BaseException):
                sent.future.set_exception(result)
            else:
                sent.future.set_result(None)

    def _take(self, number: int | None) -> list[Sent]:
        with self._changed:
            number = len(self.waiting) if number is None else number
            taken, self.waiting = self.waiting[:number], self.waiting[number:]
            self._changed.notify_all()
        return taken

    def disconnect(self) -> None:
        """The broker is away; what waits for a receipt goes on waiting."""
        with self._changed:
            self._connected = False

    def connect(self) -> None:
        """The broker is back."""
        with self._changed:
            self._connected = True
            self._changed.notify_all()

    def close(self) -> None:
        """The bus was stopped: what waits fails, and nothing more is taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.fail(BusClosed("the bus is closed"))
