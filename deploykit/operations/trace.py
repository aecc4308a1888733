"""Trace a commit, a ref or an id: in a recorded log, or in what passes on a bus while it looks.

Rules:

* A log is read in several passes and flat memory; of the bus, the last messages are kept up to `MOST_BYTES`.
* The log, and all on the bus, is hostile: what cannot be read is counted, and never an error.
* Nothing is sent, and nothing is taken from other subscribers.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import attrs

from deploykit.bus import Ack, Delivery, Verdict
from deploykit.daemons.nodetopics import NodeTopics
from deploykit.errors import MessageError, SettingsError
from deploykit.fleet.recordformat import RecordedMessage
from deploykit.fleet.recordreader import ReadCounts, RecordLog
from deploykit.fleet.trace import FoundTrace, find_trace
from deploykit.fleet.tracekeys import MessageKeys, keys_of
from deploykit.fleet.tracetrust import TraceTrust
from deploykit.messages import utc_now
from deploykit.operations.deploy import connected_bus
from deploykit.settings.node import Settings
from deploykit.system.sizedqueue import SizedQueue
from deploykit.trust.policy import Policy
from deploykit.trust.trustreader import TrustReader

#: Bytes of messages that are kept of a bus.
MOST_BYTES: Final = 64 * 1024 * 1024
#: Messages that wait to be looked at.
_WAITING: Final = 10_000
#: Least seconds between two looks at what has come.
_EVERY: Final = 0.5
#: Seconds of silence after which a way that has come to its end is believed to have.
_SETTLED: Final = 1.0


@attrs.frozen(kw_only=True, slots=True)
class TraceAnswer:
    """A trace, and what was looked through for it.

    Args:
        found: what became of the search.
        messages: how many were looked at.
        notes: what is wrong with the log, or was not heard; a line each.
        verified: signatures were looked at.
    """

    found: FoundTrace
    messages: int
    notes: tuple[str, ...] = ()
    verified: bool = False


def trace_trust(settings: Settings | None) -> TraceTrust | None:
    """Return whom to believe; None where the settings name no allowed signers.

    Raises:
        SettingsError: the grants are wrong.
    """
    if settings is None or settings.trust.allowed_signers is None:
        return None
    return TraceTrust(trusted=TrustReader(settings.trust), policy=Policy.from_settings(settings.trust, repos=None))


def trace_log(
    text: str,
    paths: Iterable[Path],
    trust: TraceTrust | None,
    *,
    on_begin: Callable[[int], None] = lambda _: None,
) -> TraceAnswer:
    """Trace in recorded logs, their rotated parts included.

    Args:
        text: an id, a commit or a ref; the beginning of a commit or id will do.
        paths: the files that `deploykit watch --record` writes, the oldest first.
        trust: judges the signatures; None: they are not looked at.
        on_begin: called with the bytes that will be read, several times.

    Raises:
        UsageError, OSError: a file is none, or cannot be read.
    """
    counts = ReadCounts()
    with RecordLog(paths) as log:
        on_begin(log.size)

        def source() -> Iterator[tuple[MessageKeys, RecordedMessage]]:
            nonlocal counts
            counts = ReadCounts()
            for record in log.messages(counts):
                if (keys := keys_of(record)) is not None:
                    yield keys, record

        found = find_trace(text, source, trust)
    return TraceAnswer(
        found=found, messages=counts.messages, notes=tuple(_log_notes(counts)), verified=trust is not None
    )


def _log_notes(counts: ReadCounts) -> Iterator[str]:
    if counts.broken:
        yield f"{counts.broken} lines are no record and left out, the first: {counts.first_broken}"
    if counts.too_long:
        yield f"{counts.too_long} lines are longer than any message, and left out"
    if counts.torn:
        yield f"the last line of {counts.torn} files is torn: its recorder was killed, or writes right now"
    for gap in counts.gaps[:20]:
        yield f"{gap.lost} messages between {_shown(gap.since)} and {_shown(gap.until)} could not be recorded"
    if (more := len(counts.gaps) - 20 + counts.more_gaps) > 0:
        yield f"{more} more gaps of this kind"


def _shown(at: datetime) -> str:
    return at.isoformat(timespec="seconds")


def trace_bus(
    settings: Settings,
    text: str,
    *,
    timeout: float,
    on_change: Callable[[TraceAnswer], None] = lambda _: None,
    on_ready: Callable[[], None] = lambda: None,
) -> TraceAnswer:
    """Trace what passes on the bus, until the time is over, the way has come to its end, or Ctrl-C.

    Args:
        settings: of the bus, the topics and the trust.
        text: as for `trace_log`.
        timeout: seconds to look.
        on_change: called with the trace so far, when it may have changed.
        on_ready: called when all topics are subscribed to.

    Raises:
        ConnectError, LoginRefused: there is no broker; nothing was heard.
    """
    trust = trace_trust(settings)
    ear = _Ear()
    with connected_bus(settings) as bus:
        nodes = NodeTopics(bus, settings.topics, lambda topic: bus.subscribe(topic, ear.hear))
        for destination in settings.topics.destinations:
            bus.subscribe(destination, ear.hear)
        nodes.look()
        bus.wait_connected(settings.broker.connect_timeout)
        on_ready()
        with contextlib.suppress(KeyboardInterrupt):  # what was heard so far is the answer
            _listen(ear, nodes, text, trust, time.monotonic() + timeout, on_change)
        ear.end()
    return ear.answer(text, trust)


def _listen(
    ear: _Ear,
    nodes: NodeTopics,
    text: str,
    trust: TraceTrust | None,
    end: float,
    on_change: Callable[[TraceAnswer], None],
) -> None:
    looked, changed, settled = 0.0, False, float("inf")
    while (now := time.monotonic()) < end:
        delivery = ear.next(min(end - now, _EVERY))
        if delivery is not None:
            with contextlib.suppress(MessageError):  # it has no keys, either
                nodes.heard(delivery.message)
            changed |= ear.keep(delivery)
        if changed and time.monotonic() - looked >= _EVERY:
            answer = ear.answer(text, trust)
            on_change(answer)
            looked, changed = time.monotonic(), False
            complete = answer.found.trace is not None and answer.found.trace.complete
            settled = looked + _SETTLED if complete else float("inf")
        elif not changed and time.monotonic() >= settled:
            return


class _Ear:
    """What was heard on a bus. `hear` may be called from any thread, the rest from one."""

    def __init__(self) -> None:
        self._came: SizedQueue[tuple[Delivery, datetime]] = SizedQueue(
            _WAITING, lambda came: len(came[0].body), MOST_BYTES
        )
        self._ended = threading.Event()
        self._kept: deque[tuple[MessageKeys, RecordedMessage]] = deque()
        self._bytes = 0
        self._received = utc_now()
        self.messages = 0
        self.dropped = 0

    def hear(self, delivery: Delivery) -> Verdict:
        """Take a message; wait while too many do, which holds the broker back."""
        came = delivery, utc_now()
        while not self._ended.is_set():
            with contextlib.suppress(queue.Full):
                self._came.put(came, timeout=0.2)
                break
        return Ack()

    def end(self) -> None:
        """Take nothing more."""
        self._ended.set()

    def next(self, timeout: float) -> Delivery | None:
        try:
            delivery, self._received = self._came.get(timeout=timeout)
        except queue.Empty:
            return None
        self.messages += 1
        return delivery

    def keep(self, delivery: Delivery) -> bool:
        """Keep what a trace may be made of; return whether it is that."""
        record = RecordedMessage(
            received=self._received, destination=delivery.destination, headers=delivery.headers, body=delivery.body
        )
        keys = keys_of(record)
        if keys is None:
            return False
        self._kept.append((keys, record))
        self._bytes += len(record.body) + 1000
        while self._bytes > MOST_BYTES:
            _, oldest = self._kept.popleft()
            self._bytes -= len(oldest.body) + 1000
            self.dropped += 1
        return True

    def answer(self, text: str, trust: TraceTrust | None) -> TraceAnswer:
        notes = (f"{self.dropped} messages were too many to keep, the oldest",) if self.dropped else ()
        found = find_trace(text, lambda: self._kept, trust)
        return TraceAnswer(found=found, messages=self.messages, notes=notes, verified=trust is not None)


def settings_if_any(load: Callable[[], Settings], *, needed: bool) -> Settings | None:
    """Return the settings; None where there are none and none are needed: a log can be read anywhere.

    Raises:
        SettingsError: they are wrong, or needed.
    """
    try:
        return load()
    except SettingsError:
        if needed:
            raise
        return None


__all__ = ["TraceAnswer", "settings_if_any", "trace_bus", "trace_log", "trace_trust"]
