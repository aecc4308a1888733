"""Waiting for what another thread, process or broker does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def wait_until(condition: Callable[[], _T], what: str = "", timeout: float = 60.0, *, every: float = 0.005) -> _T:
    """Return the first true value of `condition`.

    Polls every few milliseconds: tests wait for short things, often.

    Args:
        what: what is waited for, for people who read the failure.
        timeout: in seconds; long, as a busy machine is not a failure.
        every: seconds between two looks; more where each asks a database, a server or a command: what that costs is
            taken from those that are waited for.

    Raises:
        AssertionError: it did not become true in time; the text has `what` and the last value.
    """
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"did not come in {timeout:g} s: {what or condition}; last value: {value!r}")
        time.sleep(every)
    return value
