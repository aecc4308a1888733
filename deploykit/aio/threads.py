"""Blocking calls in threads of their own: the event loop's executor may be full of waits, of ours or of others."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

_R = TypeVar("_R")


async def in_thread(function: Callable[[], _R]) -> _R:
    """Return what a blocking call returns, or raise what it raises.

    If the caller is cancelled, the call goes on to its end, and nobody gets its result.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[_R] = loop.create_future()

    def succeed(result: _R) -> None:
        if not outcome.done():
            outcome.set_result(result)

    def fail(error: BaseException) -> None:
        if not outcome.done():
            outcome.set_exception(error)

    def run() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 -- whoever waits gets it
                loop.call_soon_threadsafe(fail, error)
            else:
                loop.call_soon_threadsafe(succeed, result)

    threading.Thread(target=run, name="deploykit-aio", daemon=True).start()
    return await outcome
