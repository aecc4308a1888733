"""Collects the messages of one trace, each once, in any order: progress is folded as it comes.

Rules:

* A copy counts once, at the time of the first. Other keys make another copy; a second signature by one key does not.
* At most `MOST_MESSAGES` are kept, and of progress one fold for each node and command. What is left out is counted.
* What cannot be decoded is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final, TypeVar

import attrs

from deploykit.errors import MessageError
from deploykit.fleet.recordformat import RecordedMessage
from deploykit.fleet.tracetrust import SignatureVerdict, TraceTrust, judge
from deploykit.messages import DeployProgressed, Message
from deploykit.trust.signature import copy_digest, frame_digest
from deploykit.wire import decode

M = TypeVar("M", bound=Message)

#: Messages of one trace, and events of one fold. A rollout over 5,000 nodes in two phases stays below it.
MOST_MESSAGES: Final = 20_000
MOST_EVENTS: Final = 1000


@attrs.frozen(kw_only=True, slots=True)
class TracedMessage:
    """One message of a trace: what it says, when it was recorded, and what its signature is worth."""

    message: Message
    received: datetime
    verdict: SignatureVerdict
    digest: str


def of_kind(messages: Iterable[TracedMessage], kind: type[M]) -> Iterator[tuple[TracedMessage, M]]:
    """Yield the messages of a class, each with what is known of it."""
    for one in messages:
        if isinstance(one.message, kind):
            yield one, one.message


@attrs.define(slots=True)
class ProgressFold:
    """All progress of one node in one command that has one standing.

    Args:
        head: any of its messages, for what they all say.
        events: number -> when it was first recorded, step and state. Of two with one number the smaller one counts.
        left_out: events beyond the cap.
    """

    head: DeployProgressed
    verdict: SignatureVerdict
    events: dict[int, tuple[datetime, str, str]] = attrs.field(factory=dict)
    left_out: bool = False

    def add(self, message: DeployProgressed, received: datetime) -> None:
        """Fold one event in."""
        event = received, message.step, message.state
        known = self.events.get(message.number)
        if known is None and len(self.events) >= MOST_EVENTS:
            self.left_out = True
        else:
            self.events[message.number] = event if known is None else min(known, event)

    @property
    def first(self) -> datetime:
        """When the first event was recorded."""
        return min(event[0] for event in self.events.values())

    @property
    def last(self) -> datetime:
        """When the last event was recorded."""
        return max(event[0] for event in self.events.values())

    @property
    def missing(self) -> int:
        """How many events are known not to be here: gaps in the numbers."""
        return 0 if self.left_out else max(self.events) + 1 - len(self.events)

    def steps(self) -> tuple[tuple[str, str], ...]:
        """Return each step and its last known state, in the order of their first events; `output` counts as `began`."""
        found: dict[str, str] = {}
        for number in sorted(self.events):
            _, step, state = self.events[number]
            if state == "output":
                found.setdefault(step, "began")
            else:
                found[step] = state
        return tuple(found.items())


class TraceBuilder:
    """Takes the messages of a trace. Not for several threads.

    Args:
        trust: judges the signatures; None: they are not looked at.
    """

    def __init__(self, trust: TraceTrust | None) -> None:
        self._trust = trust
        self._messages: dict[str, TracedMessage] = {}
        self._names: dict[str, str] = {}
        self._folds: dict[tuple[str, ...], ProgressFold] = {}
        self.unreadable = 0
        self.left_out = 0

    @property
    def messages(self) -> tuple[TracedMessage, ...]:
        """All but progress, in the order in which they were recorded."""
        return tuple(sorted(self._messages.values(), key=lambda one: (one.received, one.digest)))

    @property
    def folds(self) -> tuple[ProgressFold, ...]:
        """The progress of each node and command."""
        return tuple(self._folds[key] for key in sorted(self._folds))

    def add(self, record: RecordedMessage) -> bool:
        """Take one message; return whether it is new."""
        as_it_came = frame_digest(record.frame)
        if self._came_before(self._names.get(as_it_came, ""), record):
            return False
        try:
            message = decode(record.headers, record.body, record.destination, received=record.received)
        except MessageError:
            self.unreadable += 1
            return False
        if message is None:
            return False
        verdict = judge(record, message, self._trust)
        if isinstance(message, DeployProgressed):
            return self._fold(message, record.received, verdict)
        return self._keep(message, record, verdict, as_it_came)

    def _keep(self, message: Message, record: RecordedMessage, verdict: SignatureVerdict, as_it_came: str) -> bool:
        # Only a verified copy is known by its keys: those of another may have signed nothing.
        name = copy_digest(record.frame) if verdict.standing == "verified" else as_it_came
        if self._came_before(name, record):
            return False
        if len(self._messages) >= MOST_MESSAGES:
            self.left_out += 1
            return False
        self._messages[name] = TracedMessage(message=message, received=record.received, verdict=verdict, digest=name)
        self._names[as_it_came] = name
        return True

    def _came_before(self, name: str, record: RecordedMessage) -> bool:
        """Return whether a message is known by this name; note when its first copy came."""
        known = self._messages.get(name)
        if known is not None and record.received < known.received:
            self._messages[name] = attrs.evolve(known, received=record.received)
        return known is not None

    def _fold(self, message: DeployProgressed, received: datetime, verdict: SignatureVerdict) -> bool:
        key = (message.node, message.request, verdict.standing, verdict.signer)
        fold = self._folds.get(key)
        if fold is None:
            if len(self._folds) >= MOST_MESSAGES:
                self.left_out += 1
                return False
            fold = self._folds[key] = ProgressFold(message, verdict)
        elif (message.number, message.id) < (fold.head.number, fold.head.id):
            fold.head = message
        fold.add(message, received)
        return True
