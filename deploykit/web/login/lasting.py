"""Answers that last, such as the stream of events: ended when their login ends, and not too many at once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Final

from starlette.types import Message, Send

#: Seconds between two looks whether a login still holds.
CHECK_EVERY: Final = 5.0
#: Most streams of one login; browsers share one stream among their tabs.
MOST_STREAMS: Final = 50
#: Most streams of a console without a login.
MOST_LOCAL_STREAMS: Final = 500


class AnswerEnded(OSError):
    """The answer was ended since its login ended. Servers' own word for a reader that is gone is an OSError, too."""


class LastingAnswer:
    """Sends an answer as long as its login holds.

    Args:
        send: of the server.
        goes_on: whether the login holds.
        clock: monotonic seconds.
    """

    def __init__(
        self, send: Send, goes_on: Callable[[], Awaitable[bool]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._send = send
        self._goes_on = goes_on
        self._clock = clock
        self._check_at = clock() + CHECK_EVERY
        self._counted = False
        self.ended = False

    async def send(self, message: Message) -> None:
        """Send one part, or the end instead.

        Raises:
            AnswerEnded: the login does not hold any more; the reader got the end.
        """
        if self.ended:
            raise AnswerEnded
        if message["type"] == "http.response.start":
            # An answer of a known length must get all its bytes; it ends by itself.
            self._counted = any(name.lower() == b"content-length" for name, _ in message["headers"])
        elif message.get("more_body") and not self._counted and not await self._holds():
            self.ended = True
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            raise AnswerEnded
        await self._send(message)

    async def _holds(self) -> bool:
        if self._clock() < self._check_at:
            return True
        self._check_at = self._clock() + CHECK_EVERY
        return await self._goes_on()


class OpenStreams:
    """How many streams each login has open. Use it in one event loop at a time."""

    def __init__(self) -> None:
        self._open: Counter[Hashable] = Counter()

    @contextmanager
    def one_more(self, key: Hashable, most: int) -> Iterator[bool]:
        """Yield whether one more may be opened; it counts as open until the block ends."""
        if self._open[key] >= most:
            yield False
            return
        self._open[key] += 1
        try:
            yield True
        finally:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]

    def __len__(self) -> int:
        return sum(self._open.values())


__all__ = ["CHECK_EVERY", "MOST_LOCAL_STREAMS", "MOST_STREAMS", "AnswerEnded", "LastingAnswer", "OpenStreams"]
