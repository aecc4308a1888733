"""The books of a chaos run, and the judgement over them. No bus, broker or disk in here.

What is a violation:

* lost: confirmed, and a receiver of its destination never got it;
* invented: received, and never sent, or refused with the promise that it was not taken;
* altered: received with another body;
* out of order: received (for the first time) before a message to the same destination that was confirmed before this
  one was begun, or that its writer sent earlier. What was under way together when a broker was killed may be swapped:
  of what it had not confirmed a broker may keep any part. That is counted apart, as `swapped_by_kill`;
* handled twice: a handler was asked about a message that its store of ids had as done.

Duplicates are counted, not judged: delivery is at least once. Times are monotonic seconds.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import attrs

Outcome = Literal["under way", "confirmed", "unknown", "refused"]


@attrs.define(kw_only=True, slots=True)
class Sent:
    """One message: who sent it where, as which of theirs, when, and what came of it."""

    writer: str
    number: int
    destination: str
    began: float
    ended: float = 0.0
    outcome: Outcome = "under way"


@attrs.define(kw_only=True, slots=True)
class Receiver:
    """What one receiver got: message -> when for the first time, in that order; and what it has still to get."""

    name: str
    destination: str
    ordered: bool
    first: dict[str, float] = attrs.field(factory=dict)
    missing: set[str] = attrs.field(factory=set)
    again: int = 0


@attrs.frozen(kw_only=True, slots=True)
class Verdict:
    """What the books say. All but `duplicates` and `swapped_by_kill` are violations, as lines for people."""

    lost: tuple[str, ...]
    invented: tuple[str, ...]
    altered: tuple[str, ...]
    out_of_order: tuple[str, ...]
    handled_twice: tuple[str, ...]
    duplicates: int
    swapped_by_kill: int

    @property
    def violations(self) -> tuple[str, ...]:
        """Every violation, the gravest first."""
        return (*self.lost, *self.invented, *self.altered, *self.handled_twice, *self.out_of_order)


class Accounts:
    """The books, written by many threads. With a `history` file every entry is a line of it, too."""

    def __init__(self, history: Path | None = None) -> None:
        self.sent: dict[str, Sent] = {}
        self.receivers: dict[str, Receiver] = {}
        self.kills: list[tuple[float, float]] = []
        self._strange: list[str] = []
        self._altered: list[str] = []
        self._done: set[str] = set()
        self._twice: list[str] = []
        self._lock = threading.Lock()
        self._file = history.open("w", encoding="utf-8") if history is not None else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def note(self, *what: object) -> None:
        """Write a line of history that is no entry of the books."""
        with self._lock:
            self._note(time.monotonic(), *what)

    def _note(self, now: float, *what: object) -> None:
        if self._file is not None:
            self._file.write(json.dumps([round(now, 4), *what], default=str) + "\n")

    # -- senders -----------------------------------------------------------------------------------------------

    def begin(self, identity: str, writer: str, number: int, destination: str) -> None:
        """Enter a message before it is sent. `number` counts what `writer` sends."""
        now = time.monotonic()
        with self._lock:
            self.sent[identity] = Sent(writer=writer, number=number, destination=destination, began=now)
            self._note(now, "send", identity, destination)

    def end(self, identity: str, outcome: Outcome) -> None:
        """Enter what came of it. One that was confirmed once stays so."""
        now = time.monotonic()
        with self._lock:
            sent = self.sent[identity]
            if sent.outcome != "confirmed":
                sent.ended, sent.outcome = now, outcome
                if outcome == "confirmed":
                    for receiver in self.receivers.values():
                        if receiver.destination == sent.destination and identity not in receiver.first:
                            receiver.missing.add(identity)
            self._note(now, outcome, identity)

    # -- receivers ---------------------------------------------------------------------------------------------

    def expect(self, name: str, destination: str, *, ordered: bool) -> None:
        """Enter a receiver that must get everything confirmed for `destination` from now on."""
        self.receivers[name] = Receiver(name=name, destination=destination, ordered=ordered)

    def receive(self, name: str, identity: str, *, intact: bool) -> None:
        """Enter a delivery."""
        now = time.monotonic()
        with self._lock:
            receiver = self.receivers[name]
            if identity not in self.sent:
                self._strange.append(f"{name} got {identity!r}, which nobody sent")
            elif not intact:
                self._altered.append(f"{name} got {identity} with another body")
            if identity in receiver.first:
                receiver.again += 1
            else:
                receiver.first[identity] = now
                receiver.missing.discard(identity)
            self._note(now, "receive", name, identity)

    def handle(self, identity: str) -> None:
        """Enter that a handler with a store of ids is asked about a message."""
        with self._lock:
            if identity in self._done:
                self._twice.append(f"{identity} was done, and a handler was asked about it again")
            self._note(time.monotonic(), "handle", identity)

    def done(self, identity: str) -> None:
        """Enter that the store of ids has a message as done."""
        with self._lock:
            self._done.add(identity)
            self._note(time.monotonic(), "done", identity)

    # -- the end -----------------------------------------------------------------------------------------------

    @property
    def confirmed(self) -> int:
        """How many messages are confirmed."""
        with self._lock:
            return sum(sent.outcome == "confirmed" for sent in self.sent.values())

    @property
    def under_way(self) -> int:
        """How many messages came to nothing yet."""
        with self._lock:
            return sum(sent.outcome == "under way" for sent in self.sent.values())

    def backlog(self) -> int:
        """Return how many deliveries of confirmed messages are missing at the moment."""
        with self._lock:
            return sum(len(receiver.missing) for receiver in self.receivers.values())

    def judge(self, *, confirmed_at_arrival: bool = False) -> Verdict:
        """Compare the books.

        Args:
            confirmed_at_arrival: a message counts as under way until it was received, because "confirmed" in these
                books is not the broker's word but the outbox's.
        """
        with self._lock:
            receivers = list(self.receivers.values())
            lost = [f"{r.name} never got {i}: {self.sent[i]}" for r in receivers for i in sorted(r.missing)]
            refused = [
                f"{r.name} got {i}, which was refused: {self.sent[i]}"
                for r in receivers
                for i in r.first
                if i in self.sent and self.sent[i].outcome == "refused"
            ]
            out_of_order: list[str] = []
            swapped = 0
            for receiver in receivers:
                if receiver.ordered:
                    bad, excused = _order(receiver, self.sent, self.kills, confirmed_at_arrival=confirmed_at_arrival)
                    out_of_order += bad
                    swapped += excused
            return Verdict(
                lost=tuple(lost),
                invented=(*self._strange, *refused),
                altered=tuple(self._altered),
                out_of_order=tuple(out_of_order),
                handled_twice=tuple(self._twice),
                duplicates=sum(r.again for r in receivers),
                swapped_by_kill=swapped,
            )


def _order(
    receiver: Receiver, sent: dict[str, Sent], kills: Sequence[tuple[float, float]], *, confirmed_at_arrival: bool
) -> tuple[list[str], int]:
    """Return the violations of order, and how many swaps a killed broker explains."""
    bad, excused = [], 0
    last_of: dict[str, tuple[str, Sent]] = {}  # of each writer: what was received with the highest number
    latest: tuple[str, Sent] | None = None  # of all: what was begun last
    for identity, when in receiver.first.items():
        one = sent.get(identity)
        if one is None or one.outcome != "confirmed":
            continue
        before = last_of.get(one.writer)
        if before is None or before[1].number < one.number:
            last_of[one.writer] = (identity, one)
            before = None
        if before is None and latest is not None and latest[1].began > one.ended:
            before = latest
        if before is not None:
            until = when if confirmed_at_arrival else one.ended
            if any(begin <= until and end >= before[1].began for begin, end in kills):
                excused += 1
            else:
                bad.append(f"{receiver.name} got {before[0]} before {identity}: {before[1]} {one}")
        if latest is None or latest[1].began < one.began:
            latest = (identity, one)
    return bad, excused
