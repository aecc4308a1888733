"""When which mirror is fetched. Pure: takes the time and a source of chance, returns what to start.

Rules: one fetch at a time for a mirror; whatever is asked for while it fetches is one more fetch; an origin that fails
is left alone for a while, longer each time, with all its mirrors; every pause is spread by chance, so that a thousand
nodes do not come in the same second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, TypeVar

import attrs

from deploykit.mirror.values import RefChange
from deploykit.names import ObjectId, RefName, is_zero

T = TypeVar("T")

_FIRST_PAUSE: Final = 2.0


def what_to_fetch(told: Sequence[RefChange | None], held: Mapping[RefName, ObjectId]) -> RefChange | None:
    """Which one ref to ask the origin for, or None: all of them.

    All, when nothing particular was told, when several refs were, or when a message's old id is not what we hold: then
    an earlier message was missed, and other refs may be behind too.
    """
    changes = [change for change in told if change is not None]
    if len(changes) < len(told) or not changes or len({change.ref for change in changes}) > 1:
        return None
    reached = held.get(changes[0].ref)
    for change in changes:
        old, new = _there(change.old), _there(change.new)
        if reached not in (old, new):
            return None
        reached = new
    return changes[-1]


def _there(oid: ObjectId) -> ObjectId | None:
    return None if is_zero(oid) else oid


@attrs.frozen(slots=True)
class Asked(Generic[T]):
    """One request: what a message told (None: look at everything), and the caller's token for the answer."""

    told: RefChange | None
    token: T


@attrs.define(slots=True)
class _Entry(Generic[T]):
    origin: str
    every: float
    spread: float
    due: float
    running: bool = False
    waiting: list[Asked[T]] = attrs.field(factory=list)


@attrs.define(slots=True)
class _Origin:
    failures: int = 0
    not_before: float = 0.0


class Schedule(Generic[T]):
    """The state of all mirrors' fetches.

    Args:
        chance: gives a number from 0 to 1.
        longest_pause: after repeated failures of an origin, in seconds.
    """

    def __init__(self, *, chance: Callable[[], float], longest_pause: float = 300.0) -> None:
        self._chance = chance
        self._longest_pause = longest_pause
        self._entries: dict[str, _Entry[T]] = {}
        self._origins: dict[str, _Origin] = {}

    def add(self, name: str, *, origin: str, every: float, spread: float, now: float, at_once: bool = True) -> None:
        """Know a mirror: it is compared with its origin at once (spread a little), and then every so many seconds."""
        first = self._chance() * min(spread, every) if at_once else self._around(every)
        self._entries[name] = _Entry(origin, every, spread, now + first)
        self._origins.setdefault(origin, _Origin())

    def remove(self, name: str) -> list[Asked[T]]:
        """Forget a mirror. Returns the requests that nobody will answer now."""
        entry = self._entries.pop(name, None)
        return entry.waiting if entry else []

    def ask(self, name: str, asked: Asked[T], now: float) -> None:
        """Ask for a fetch. KeyError when the mirror is not known."""
        entry = self._entries[name]
        if not entry.waiting:
            entry.due = min(entry.due, now + self._chance() * entry.spread)
        entry.waiting.append(asked)

    def all_soon(self, now: float) -> None:
        """Compare every mirror with its origin soon: messages may have been missed."""
        for entry in self._entries.values():
            entry.due = min(entry.due, now + self._chance() * entry.spread)

    def start(self, now: float) -> tuple[str, list[Asked[T]]] | None:
        """Take the mirror that is due for longest, with all that was asked of it; None when none is due."""
        name = min(self._ready(), key=self._when, default=None)
        if name is None or self._when(name) > now:
            return None
        entry = self._entries[name]
        entry.running = True
        asked, entry.waiting = entry.waiting, []
        entry.due = now + self._around(entry.every)
        return name, asked

    def wait(self, now: float) -> float | None:
        """Seconds until something is due; None when nothing will be."""
        times = [self._when(name) for name in self._ready()]
        return max(0.0, min(times) - now) if times else None

    def finished(self, name: str, *, ok: bool, now: float) -> None:
        """A fetch ended; `ok` tells whether the origin answered."""
        entry = self._entries.get(name)
        if entry is None:
            return
        entry.running = False
        origin = self._origins[entry.origin]
        if ok:
            origin.failures, origin.not_before = 0, 0.0
            if entry.waiting:
                entry.due = now
            return
        origin.failures += 1
        pause = min(_FIRST_PAUSE * 2 ** min(origin.failures - 1, 20), self._longest_pause)
        origin.not_before = max(origin.not_before, now + pause * (0.5 + self._chance()))
        entry.due = min(entry.due, origin.not_before)

    def _ready(self) -> list[str]:
        return [name for name, entry in self._entries.items() if not entry.running]

    def _when(self, name: str) -> float:
        entry = self._entries[name]
        return max(entry.due, self._origins[entry.origin].not_before)

    def _around(self, seconds: float) -> float:
        return seconds * (0.8 + 0.4 * self._chance())
