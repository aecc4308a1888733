"""When which mirror is fetched. Pure: takes the time and a source of chance, returns what to start.

Rules:

* A mirror has one fetch at a time. What is requested while it is fetched is one more fetch.
* An origin has a few fetches at a time and no more, so that a silent one holds up no other.
* A mirror whose fetch fails pauses, longer each time.
* An origin two of whose mirrors fail in a row pauses with all of them, and is then tried with one fetch. One
  repository that is gone there costs the others nothing.
* Every pause is spread by chance, so that a thousand nodes do not come in the same second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, TypeVar

import attrs

from deploykit.mirror.model import RefChange
from deploykit.names import ObjectId, RefName, is_zero
from deploykit.system.backoff import Backoff

T = TypeVar("T")

_FIRST_PAUSE: Final = 2.0
#: Refs that are fetched one by one, at most.
_MOST_SINGLE: Final = 20
#: Who is asked for (a push came from there, a deploy waits) is left alone no longer than this.
_ASKED: Final = Backoff(initial=5.0, maximum=5.0, low=0.5, high=1.5)


def what_to_fetch(requested: Sequence[RefChange | None], held: Mapping[RefName, ObjectId]) -> RefChange | None:
    """Return the one ref to ask the origin for, or None for all of them.

    All, when a request names no ref, when they name several, or when a message's old id is not what we hold: then an
    earlier message was missed, and other refs may be behind too.

    Args:
        requested: what each request claims about a ref, or None.
        held: the mirror's refs.
    """
    changes = [change for change in requested if change is not None]
    if len(changes) < len(requested) or not changes or len({change.ref for change in changes}) > 1:
        return None
    reached = held.get(changes[0].ref)
    for change in changes:
        old, new = _there(change.old), _there(change.new)
        if reached not in (old, new):
            return None
        reached = new
    return changes[-1]


def refs_to_fetch(requested: Sequence[RefChange | None]) -> tuple[RefChange, ...] | None:
    """Return the refs to ask the origin for one by one, or None for all of them in one go.

    For a mirror that is fetched on request alone: what nobody asked for must not move. All, when a request names no
    ref, when there is no request, and when they name more refs than are worth a fetch each.
    """
    latest = {change.ref: change for change in requested if change is not None}
    if None in requested or not 0 < len(latest) <= _MOST_SINGLE:
        return None
    return tuple(latest.values())


def _there(oid: ObjectId) -> ObjectId | None:
    return None if is_zero(oid) else oid


@attrs.frozen(slots=True)
class FetchRequest(Generic[T]):
    """One request for a fetch.

    Args:
        change: what a message claims; None: compare all refs.
        token: the caller's.
        reason: what the fetch is for.
        cause: the caller's own word for what asks.
    """

    change: RefChange | None
    token: T
    reason: str = ""
    cause: str = ""
    pushed: float | None = None


@attrs.define(slots=True)
class _Rest:
    """A pause after failures; none while `failures` is 0."""

    failures: int = 0
    failed: float = 0.0
    until: float = 0.0

    def begin(self, now: float, backoff: Backoff, chance: float) -> None:
        self.failures += 1
        self.failed = now
        self.until = max(self.until, now + backoff.pause(self.failures, chance))

    def shorten(self, chance: float) -> None:
        self.until = min(self.until, self.failed + _ASKED.pause(1, chance))


@attrs.define(slots=True)
class _Entry(Generic[T]):
    origin: str
    every: float
    spread: float
    due: float
    rest: _Rest = attrs.field(factory=_Rest)
    waiting: list[FetchRequest[T]] = attrs.field(factory=list)


@attrs.define(slots=True)
class _Origin:
    running: int = 0
    failing: set[str] = attrs.field(factory=set)
    rest: _Rest = attrs.field(factory=_Rest)


class Schedule(Generic[T]):
    """The state of all mirrors' fetches.

    Args:
        chance: gives a number from 0 to 1.
        longest_pause: after repeated failures of an origin, in seconds.
        per_origin: fetches from one origin at the same time, at most; one while it fails.
    """

    def __init__(self, *, chance: Callable[[], float], longest_pause: float = 300.0, per_origin: int = 4) -> None:
        self._chance = chance
        self._backoff = Backoff(initial=_FIRST_PAUSE, maximum=longest_pause, low=0.5, high=1.5)
        self._per_origin = per_origin
        self._entries: dict[str, _Entry[T]] = {}
        self._running: dict[str, str] = {}
        self._origins: dict[str, _Origin] = {}

    def add(self, name: str, *, origin: str, every: float, spread: float, now: float, at_once: bool = True) -> None:
        """Add a mirror: it is compared with its origin at once (spread a little), and then every so many seconds.

        Where `every` is infinite, only a request or a failed fetch has it fetched.
        """
        first = self._chance() * min(spread, every) if at_once else self._around(every)
        self._entries[name] = _Entry(origin, every, spread, now + first)
        self._origins.setdefault(origin, _Origin())

    def remove(self, name: str) -> list[FetchRequest[T]]:
        """Forget a mirror. Return the requests that will not be answered any more."""
        entry = self._entries.pop(name, None)
        return entry.waiting if entry else []

    def ask(self, name: str, request: FetchRequest[T], now: float) -> None:
        """Ask for a fetch. KeyError when the mirror is not known."""
        entry = self._entries[name]
        for rest in (entry.rest, self._origins[entry.origin].rest):
            rest.shorten(self._chance())
        if not entry.waiting:
            entry.due = min(entry.due, now + self._chance() * entry.spread)
        entry.waiting.append(request)

    def waiting(self, name: str) -> int:
        """Return how many requests wait for the next fetch of a mirror. KeyError when it is not known."""
        return len(self._entries[name].waiting)

    def awaited(self, name: str, ref: RefName | None, cause: str | None = None) -> bool:
        """Return whether a request that waits asks for this ref, or for all. KeyError when the mirror is not known.

        Args:
            name: of the mirror.
            ref: None: for all.
            cause: only requests with this one count; None: any.
        """
        return any(
            cause in (None, each.cause) and (each.change is None or (ref is not None and each.change.ref == ref))
            for each in self._entries[name].waiting
        )

    def all_soon(self, now: float) -> None:
        """Compare every mirror with its origin soon, but for those that are fetched on request alone."""
        for entry in self._entries.values():
            if entry.every == float("inf"):
                continue
            entry.due = min(entry.due, now + self._chance() * entry.spread)

    def start(self, now: float) -> tuple[str, list[FetchRequest[T]]] | None:
        """Take the mirror that is due for longest, with all requests for it; None when none is due."""
        name = min(self._ready(), key=self._when, default=None)
        if name is None or self._when(name) > now:
            return None
        entry = self._entries[name]
        self._running[name] = entry.origin
        self._origins[entry.origin].running += 1
        requests, entry.waiting = entry.waiting, []
        entry.due = now + self._around(entry.every)
        return name, requests

    def wait(self, now: float) -> float | None:
        """Return the seconds until something is due; None when nothing will be."""
        first = min((self._when(name) for name in self._ready()), default=float("inf"))
        return max(0.0, first - now) if first < float("inf") else None

    def finished(self, name: str, *, ok: bool, now: float, here: bool = False) -> None:
        """Note that a fetch ended.

        Args:
            ok: the mirror is what the origin shows.
            here: the failure was on this side, and says nothing of the origin.
        """
        origin = self._origins[self._running.pop(name)]
        origin.running -= 1
        if ok:
            origin.failing.clear()
            origin.rest = _Rest()
        elif not here:
            origin.failing.add(name)
            if len(origin.failing) > 1:
                origin.rest.begin(now, self._backoff, self._chance())
        entry = self._entries.get(name)
        if entry is None:
            return
        if ok:
            entry.rest = _Rest()
        else:
            entry.rest.begin(now, self._backoff, self._chance())
        if entry.waiting or not ok:
            entry.due = min(entry.due, now)

    def _ready(self) -> list[str]:
        """Return the mirrors that could be fetched: none of theirs is running, and their origin has a place free."""
        free = {
            name
            for name, origin in self._origins.items()
            if origin.running < (1 if origin.rest.failures else self._per_origin)
        }
        return [n for n, entry in self._entries.items() if entry.origin in free and n not in self._running]

    def _when(self, name: str) -> float:
        entry = self._entries[name]
        return max(entry.due, entry.rest.until, self._origins[entry.origin].rest.until)

    def _around(self, seconds: float) -> float:
        return seconds * (0.8 + 0.4 * self._chance())
