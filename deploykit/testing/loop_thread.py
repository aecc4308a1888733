"""An asyncio loop in a thread of its own, for test servers that other threads control."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from deploykit.errors import BrokerError, UsageError

_T = TypeVar("_T")

_PATIENCE = 10.0  # seconds to wait for the loop


class LoopThread:
    """A running loop. `run` and `call` may be used from any thread but the loop's own."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._body, name=name, daemon=True)
        self._thread.start()

    def _body(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        finally:
            self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in the loop and return its result.

        Raises:
            BrokerError: it did not end in time.
            UsageError: the loop was stopped.
        """
        if self._loop.is_closed():
            coroutine.close()
            raise UsageError("this server was stopped", "start() it again")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(_PATIENCE)
        except TimeoutError:
            future.cancel()
            raise BrokerError("a test server's loop does not answer", "look for a callback that blocks it") from None

    def call(self, function: Callable[[], _T]) -> _T:
        """Call a function in the loop and return its result."""

        async def body() -> _T:
            return function()

        return self.run(body())

    def stop(self) -> None:
        """Cancel all tasks and end the thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE)
