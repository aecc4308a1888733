"""When announcements are looked at, and when each source is read: many messages, few runs. Pure; `now` is monotonic.

    arrived -> take_gathered -> wanted -> begin -> ended -> take_settled

Rules:

* The first message opens a window of `gather` seconds; all that come in it are looked at together. A window that was
  opened while a source was read ends `gather` seconds after that run: a flood costs one run per both times together.
* A source is read once for all that wait for it when the run begins. Who comes later waits for another run: the one
  before may have seen the repository as it was before.
* A failed source is tried again after a pause, `attempts` times in all. The pause is spread by chance, and its ceiling
  doubles. Who joins meanwhile shares the tries that are left.
* A locked source is no failure. It is tried again about once in some seconds, until `lock_timeout` is over.
* A source that is missing on this machine fails at once: only a person can mend that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Generic, TypeVar

import attrs

from deploykit.daemons.packages.ports import SourceRead
from deploykit.settings.packages import PackagesSettings
from deploykit.system.backoff import Backoff

T = TypeVar("T")

#: The longest ceiling of a pause, seconds.
_LONGEST: Final = 3600.0
#: The smallest part of a pause's ceiling.
_LEAST_PART: Final = 0.2
#: How often a lock is looked at again: the program does not wait for it, so each look is a start of it.
_LOCK_POLLS: Final = Backoff(initial=1.0, maximum=8.0, low=0.5)


@attrs.frozen(slots=True)
class SettledAnnouncement(Generic[T]):
    """What an announcement waited for is over.

    Args:
        item: as it was given.
        ends: source -> how its last read ended.
    """

    item: T
    ends: Mapping[str, SourceRead]


@attrs.define(slots=True)
class _Waiting(Generic[T]):
    """Those who wait for one source."""

    due: float
    items: list[T] = attrs.field(factory=list)
    failures: int = 0
    polls: int = 0
    locked_since: float | None = None


@attrs.define(slots=True)
class _Open(Generic[T]):
    """An announcement, the sources that it waits for still, and those that are over."""

    item: T
    left: set[str]
    ends: dict[str, SourceRead] = attrs.field(factory=dict)


class RefreshSchedule(Generic[T]):
    """The books of one daemon. Use it from one thread.

    Args:
        settings: times and attempts.
    """

    def __init__(self, settings: PackagesSettings) -> None:
        self._settings = settings
        self._retries = Backoff(initial=settings.retry, maximum=_LONGEST, low=_LEAST_PART)
        self._gathered: list[T] = []
        self._opened, self._closes = 0.0, 0.0
        self._waiting: dict[str, _Waiting[_Open[T]]] = {}
        self._reading: tuple[str, float, _Waiting[_Open[T]]] | None = None
        self._settled: list[SettledAnnouncement[T]] = []

    # -- announcements -------------------------------------------------------------------------------------------------

    def arrived(self, item: T, now: float) -> None:
        """Take an announcement into the window, which it opens if none is open."""
        if not self._gathered:
            self._opened, self._closes = now, now + self._settings.gather
        self._gathered.append(item)

    def take_gathered(self, now: float) -> list[T]:
        """Return the announcements of a window that is over, in the order in which they came; none while it is open."""
        if not self._gathered or now < self._closes:
            return []
        gathered, self._gathered = self._gathered, []
        return gathered

    def put_back(self, items: Sequence[T], now: float, after: float) -> None:
        """Take announcements back that could not be looked at; the window is open for `after` seconds more."""
        self._opened, self._closes = now, now + after
        self._gathered = [*items, *self._gathered]

    def wanted(self, item: T, sources: Sequence[str], now: float) -> None:
        """Have sources (one at least) read for an announcement."""
        opened = _Open(item, set(sources))
        for source in opened.left:
            self._waiting.setdefault(source, _Waiting(now)).items.append(opened)

    # -- sources -------------------------------------------------------------------------------------------------------

    def next_due(self) -> float:
        """Return when there is something to do; infinite for never."""
        due = [each.due for each in self._waiting.values()]
        return min([*due, *([self._closes] if self._gathered else [])], default=float("inf"))

    def begin(self, now: float) -> str | None:
        """Return the source that is to be read now, the one that is due longest; None where none is.

        Call `ended` before the next one.
        """
        if self._reading is not None:
            raise RuntimeError(f"{self._reading[0]} is being read")
        source = min(self._waiting, key=lambda each: self._waiting[each].due, default=None)
        if source is None or self._waiting[source].due > now:
            return None
        self._reading = (source, now, self._waiting.pop(source))
        return source

    def ended(self, read: SourceRead, now: float, chance: float) -> None:
        """Take note of how the read of the source that was begun ended.

        Args:
            read: what came of it.
            now: after it.
            chance: from 0 to 1, spreads the pause before another try.
        """
        if self._reading is None:
            raise RuntimeError("nothing is being read")
        source, begun, waiting = self._reading
        self._reading = None
        if self._gathered and self._opened >= begun:
            self._closes = max(self._closes, now + self._settings.gather)
        pause = self._pause(waiting, read, now, chance)
        if pause is None:
            self._over(source, waiting, self._given_up(waiting, read, now))
        else:
            waiting.due = now + pause
            self._waiting[source] = waiting

    def take_settled(self) -> list[SettledAnnouncement[T]]:
        """Return, once, the announcements whose sources are all over."""
        settled, self._settled = self._settled, []
        return settled

    def _pause(self, waiting: _Waiting[_Open[T]], read: SourceRead, now: float, chance: float) -> float | None:
        """Return the seconds until the source is tried again; None where its end is known."""
        if read.outcome == "locked":
            since = waiting.locked_since = now if waiting.locked_since is None else waiting.locked_since
            left = since + self._settings.lock_timeout - now
            if left <= 0:
                return None
            waiting.polls += 1
            return min(left, _LOCK_POLLS.pause(waiting.polls, chance))
        waiting.locked_since, waiting.polls = None, 0
        if read.outcome != "failed":
            return None
        waiting.failures += 1
        return None if waiting.failures >= self._settings.attempts else self._retries.pause(waiting.failures, chance)

    def _given_up(self, waiting: _Waiting[_Open[T]], read: SourceRead, now: float) -> SourceRead:
        """Return how a read ended for good, with how long, or how often, it was tried."""
        if read.outcome == "locked":
            waited = now - waiting.locked_since if waiting.locked_since is not None else 0.0
            return attrs.evolve(read, detail=f"waited {waited:.0f} s for the lock: {read.detail}")
        if read.outcome == "failed" and waiting.failures > 1:
            return attrs.evolve(read, detail=f"tried {waiting.failures} times: {read.detail}")
        return read

    def _over(self, source: str, waiting: _Waiting[_Open[T]], read: SourceRead) -> None:
        for each in waiting.items:
            each.left.discard(source)
            each.ends[source] = read
            if not each.left:
                self._settled.append(SettledAnnouncement(each.item, each.ends))


__all__ = ["RefreshSchedule", "SettledAnnouncement"]
