"""Reports that are not in the outbox yet: kept in order, and queued as soon as there is room.

Rules:

* A report is given up only when its own content cannot be encoded, and then it alone.
* What finds no room is tried again while the agent runs.
* Whoever made a report need not make it twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Final

from deploykit.daemons.agent.reports import Reporter
from deploykit.errors import MessageError, OutboxError
from deploykit.messages import Message

_log = logging.getLogger(__name__)

#: Seconds until a report that found no room is tried again.
_RETRY_AFTER: Final = 5.0
#: Most reports written in one durable step.
_BATCH: Final = 512
#: Most reports that wait: some megabytes. The oldest are given up first.
_MOST: Final = 10_000
#: How often a report is tried that fails in an unforeseen way, before it is given up for the sake of the others.
_TRIES: Final = 5


class PendingReports:
    """Queues messages through a reporter, now or as soon as there is room. Use it from any thread.

    Args:
        reporter: puts them into the outbox.
        retry_after: seconds between two tries.
    """

    def __init__(self, reporter: Reporter, *, retry_after: float = _RETRY_AFTER) -> None:
        self._reporter = reporter
        self._retry_after = retry_after
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._waiting: list[Message] = []
        self._given_up = 0
        self._timer: threading.Timer | None = None
        self._stopped = False
        self._tries = 0
        self._logged = ""

    @property
    def waiting(self) -> int:
        """How many reports are not in the outbox yet."""
        return len(self._waiting)

    def add(self, messages: Sequence[Message]) -> None:
        """Queue `messages` behind those that wait already. When this returns they are in the outbox, or wait."""
        with self._lock:
            self._waiting += messages
            lost = len(self._waiting) - _MOST
            if lost > 0:
                del self._waiting[:lost]
                self._given_up += lost
                _log.error("gave up the %d oldest reports: more than %d wait for room", lost, _MOST)
        self._flush()

    def stop(self) -> None:
        """Try once more what waits, and then no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self._flush()
        if self._waiting:
            _log.error("gave up %d reports: the agent ends and there is no room for them", len(self._waiting))

    def _flush(self) -> None:
        with self._flushing:
            if self._waiting:
                self._flush_in_batches()

    def _flush_in_batches(self) -> None:
        size = _BATCH
        while True:
            with self._lock:
                batch, given_up = self._waiting[:size], self._given_up
            if not batch:
                return
            try:
                self._reporter.report(*batch)
            except OutboxError as error:
                self._retry_later(f"{error}")
                return
            except Exception as error:  # noqa: BLE001 -- whatever is wrong with one report, the others must go out
                if len(batch) > 1:
                    size = len(batch) // 2
                    continue
                self._tries += 1
                if not isinstance(error, MessageError) and self._tries < _TRIES:
                    self._retry_later(f"{type(error).__name__}: {error}")
                    return
                _log.error("cannot queue a report, given up: %s: %s", _named(batch[0]), error)
            self._tries = 0
            self._logged = ""
            with self._lock:
                gone = self._given_up - given_up  # the oldest, and so of this batch, while it was queued
                del self._waiting[: max(0, len(batch) - gone)]
            size = min(_BATCH, 2 * size)

    def _retry_later(self, why: str) -> None:
        if why != self._logged:
            _log.error("cannot queue %d reports, retrying: %s", len(self._waiting), why)
        self._logged = why
        if self._stopped:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(self._retry_after, self._flush)
        self._timer.daemon = True
        self._timer.start()


def _named(message: Message) -> str:
    try:
        return message.summary
    except Exception:  # noqa: BLE001 -- a message that cannot be encoded may have no summary either
        return type(message).__name__
