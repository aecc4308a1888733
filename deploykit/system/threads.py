"""Whether a thread has ended, asked from another thread."""

from __future__ import annotations

import threading


def has_ended(thread: threading.Thread) -> bool:
    """Return whether a thread was started and has ended.

    `is_alive` is no answer: a new thread has its `ident` a moment before it counts as alive.
    """
    return thread.ident is not None and thread not in threading.enumerate()


__all__ = ["has_ended"]
