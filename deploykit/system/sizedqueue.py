"""A queue between threads that is bounded twice: by the number of its items, and by their bytes."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class SizedQueue(queue.Queue[T]):
    """A `queue.Queue` that is also full once its items have so many bytes; one item always fits.

    Args:
        items: most items.
        size: returns the bytes of one.
        most_bytes: most bytes, but for the item that went beyond them.
    """

    def __init__(self, items: int, size: Callable[[T], int], most_bytes: int) -> None:
        self._size = size
        self._most_bytes = most_bytes
        self._bytes = 0
        super().__init__(items)

    def _init(self, maxsize: int) -> None:
        self.queue: deque[T] = deque()

    def _qsize(self) -> int:
        return self.maxsize if self._bytes >= self._most_bytes else len(self.queue)

    def _put(self, item: T) -> None:
        self._bytes += self._size(item)
        self.queue.append(item)

    def _get(self) -> T:
        item = self.queue.popleft()
        self._bytes -= self._size(item)
        return item
