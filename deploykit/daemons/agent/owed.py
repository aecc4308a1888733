"""Reports that are owed: kept, in order, until the outbox has them.

Rules: a report is given up only where its own content cannot be written, and then it alone; what finds no room is tried
again while the agent runs; whoever decided a report need not decide it twice.
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
_AGAIN: Final = 5.0
#: Reports written in one durable step, at most.
_BATCH: Final = 512
#: So many wait, at most: some megabytes. The oldest go first.
_MOST: Final = 10_000
#: How often a report is tried that fails in a way nobody foresaw, before it is given up for the sake of the others.
_TRIES: Final = 5


class PendingReports:
    """Says messages through a reporter, now or as soon as there is room.

    Args:
        reporter: takes them into the outbox.
        again: seconds between two tries.
    """

    def __init__(self, reporter: Reporter, *, again: float = _AGAIN) -> None:
        self._reporter = reporter
        self._again = again
        self._lock = threading.Lock()
        self._saying = threading.Lock()
        self._waiting: list[Message] = []
        self._timer: threading.Timer | None = None
        self._stopped = False
        self._tries = 0
        self._why = ""

    @property
    def waiting(self) -> int:
        """How many reports are not in the outbox yet."""
        return len(self._waiting)

    def say(self, messages: Sequence[Message]) -> None:
        """Queue `messages` behind what is owed already; when this returns they are in the outbox, or are owed."""
        with self._lock:
            self._waiting += messages
            lost = len(self._waiting) - _MOST
            if lost > 0:
                del self._waiting[:lost]
                _log.error("%d reports are given up, more than %d wait for room", lost, _MOST)
        self._say_all()

    def stop(self) -> None:
        """Try once more what is owed, and then no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self._say_all()
        if self._waiting:
            _log.error("%d reports are given up, the agent ends and there is no room for them", len(self._waiting))

    def _say_all(self) -> None:
        with self._saying:
            if self._waiting:
                self._say_in_batches()

    def _say_in_batches(self) -> None:
        size = _BATCH
        while batch := self._waiting[:size]:
            try:
                self._reporter.say(*batch)
            except OutboxError as error:
                self._later(f"{error}")
                return
            except Exception as error:  # noqa: BLE001 -- whatever is wrong with one report, the others are owed too
                if len(batch) > 1:
                    size = len(batch) // 2
                    continue
                self._tries += 1
                if not isinstance(error, MessageError) and self._tries < _TRIES:
                    self._later(f"{type(error).__name__}: {error}")
                    return
                _log.error("a report cannot be written and is given up: %s: %s", _named(batch[0]), error)
            self._tries = 0
            self._why = ""
            with self._lock:
                del self._waiting[: len(batch)]
            size = min(_BATCH, 2 * size)

    def _later(self, why: str) -> None:
        if why != self._why:
            _log.error("%d reports wait until they can be queued: %s", len(self._waiting), why)
        self._why = why
        if self._stopped:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(self._again, self._say_all)
        self._timer.daemon = True
        self._timer.start()


def _named(message: Message) -> str:
    try:
        return message.summary
    except Exception:  # noqa: BLE001 -- a message that cannot be written may have no summary either
        return type(message).__name__
