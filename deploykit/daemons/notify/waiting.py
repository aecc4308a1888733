"""What waits for one channel: bounded, at a bounded rate, and nothing left out without being counted. Pure.

Rules:

* A minute has at most so many letters. What does not fit is folded: counted by kind, in the letter that ends the row.
* What matters least is folded first: unsigned before verified, notices before failures before approvals. What is late
  counts as unsigned: anybody can send an old message again, as often as they like.
* A channel that fails is tried again with a growing pause. What has waited longer than `keep` is dropped and counted.
* Of an event and the notice that a hook sends with it only the event goes out; a notice waits a moment for it.
* A letter that failed is sent again as it was, under the same id.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from deploykit.settings.notify import NotifyEvent
from deploykit.system.backoff import Backoff

#: Most lines that wait for a channel, and most of one digest.
MOST_WAITING: Final = 1000
MOST_DIGEST: Final = 200
#: Seconds a notice waits for its event.
PAIR_WAIT: Final = 1.5
_PAIRS: Final = 1000
_MINUTE: Final = 60.0
_PAUSES: Final = Backoff(initial=1.0, maximum=120.0, low=0.5)
_IMPORTANCE: Final[tuple[NotifyEvent, ...]] = (
    *("notice", "push", "build", "rollout", "access", "lock", "failure", "approval"),
)


@attrs.frozen(kw_only=True, slots=True)
class WaitingLine:
    """One line that waits.

    Args:
        key: the same for each copy of the event.
        event: its kind.
        verified: whether it was signed by somebody who may say so.
        text: for people.
        data: for programs; None for channels of people.
        pair: the same for an event and its notice; None where there is no such thing.
        notice: it is the notice of a pair.
        added: monotonic seconds.
        late: it is older than what has just happened.
    """

    key: str
    event: NotifyEvent
    verified: bool
    text: str
    data: Mapping[str, object] | None = attrs.field(default=None, eq=False)
    pair: tuple[str, str] | None = None
    notice: bool = False
    added: float = 0.0
    late: bool = False

    @property
    def rank(self) -> tuple[bool, int]:
        """What it is worth: the higher, the longer it is kept."""
        return self.verified and not self.late, _IMPORTANCE.index(self.event)


@attrs.frozen(kw_only=True, slots=True)
class NotifyBatch:
    """What is sent at once.

    Args:
        id: the same at each attempt.
        lines: at least one.
        more: how many lines were left out, by kind.
        late: how many were not sent in time.
    """

    id: str
    lines: tuple[WaitingLine, ...]
    more: Mapping[NotifyEvent, int] = attrs.field(factory=dict, hash=False)
    late: int = 0


class ChannelQueue:
    """What waits for one channel. Times are monotonic seconds. Use it under a lock.

    Args:
        per_minute: most letters a minute.
        keep: seconds after which a line is too old to be sent.
        gather: seconds for which lines are gathered into one letter; 0: each line is a letter.
        pairs: events come too, so that a notice waits for its own.
    """

    def __init__(self, *, per_minute: int, keep: float, gather: float = 0.0, pairs: bool = True) -> None:
        self._per_minute = per_minute
        self._keep = keep
        self._gather = gather
        self._waits = pairs
        self._lines: deque[WaitingLine] = deque()
        self._more: Counter[NotifyEvent] = Counter()
        self._late = 0
        self._least: tuple[bool, int] = (True, len(_IMPORTANCE))  # no line that waits ranks lower
        self._sent: deque[float] = deque()
        self._pairs: OrderedDict[tuple[str, str], bool] = OrderedDict()  # -> whether the event was there
        self._current: NotifyBatch | None = None
        self._failures = 0
        self._again = 0.0
        #: How many lines were left out or came too late so far.
        self.folded = 0
        self.expired = 0

    def __len__(self) -> int:
        return len(self._lines) + (len(self._current.lines) if self._current is not None else 0)

    # -- in ------------------------------------------------------------------------------------------------------------

    def add(self, line: WaitingLine) -> bool:
        """Take a line; return whether it is to be sent: not the notice of an event that is here."""
        if line.pair is not None and not self._first_of(line, line.pair):
            return False
        if len(self._lines) >= MOST_WAITING and line.rank <= self._least:  # a flood: nothing is searched for
            self._count_folded(line)
            return True
        self._lines.append(line)
        self._least = min(self._least, line.rank)
        if len(self._lines) > MOST_WAITING:
            self._fold_least()
        return True

    def _first_of(self, line: WaitingLine, pair: tuple[str, str]) -> bool:
        known = self._pairs.get(pair)
        self._pairs[pair] = bool(known) or not line.notice
        self._pairs.move_to_end(pair)
        if len(self._pairs) > _PAIRS:
            self._pairs.popitem(last=False)
        if line.notice:
            return known is None
        for each in [each for each in self._lines if each.notice and each.pair == pair]:
            self._lines.remove(each)
        return True

    def _fold_least(self) -> None:
        """Leave out what matters least; of several the newest: what went wrong first says most."""
        line = min(reversed(self._lines), key=lambda each: each.rank)
        self._lines.remove(line)
        self._least = line.rank
        self._count_folded(line)

    def _count_folded(self, line: WaitingLine) -> None:
        self._more[line.event] += 1
        self.folded += 1

    # -- out -----------------------------------------------------------------------------------------------------------

    def next(self, now: float, *, at_once: bool = False) -> NotifyBatch | None:
        """Return what is to be sent now; the same until `sent`, `refused` or `failed` is called.

        Args:
            at_once: also what would wait for more of its kind: the end is near.
        """
        self._expire(now)
        if now < self._again or self.due(now, at_once=at_once) > 0:
            return None
        if self._current is None:
            self._current = self._digest() if self._gather else self._one(now)
        return self._current

    def due(self, now: float, *, at_once: bool = False) -> float:
        """Return the seconds until something is to be sent; infinity while nothing waits."""
        if self._current is not None:
            return max(0.0, self._again - now)
        if not self._lines:
            return float("inf")
        waits = [self._again - now]
        if not at_once:
            waits.append(min(each.added + self._wait_of(each) for each in self._lines) - now)
        if len(self._recent(now)) >= self._per_minute:
            waits.append(self._sent[0] + _MINUTE - now)
        return max(0.0, *waits)

    def sent(self, now: float) -> None:
        """Note that the letter arrived."""
        self._sent.append(now)
        self._current, self._failures, self._again = None, 0, 0.0

    def refused(self, now: float) -> None:
        """Note that this letter will never be taken: it counts as sent, and is not tried again."""
        self.sent(now)

    def failed(self, now: float, *, wait: float = 0.0, chance: float = 1.0) -> None:
        """Note that the letter may not have arrived, and try it again later.

        Args:
            wait: seconds that the other side asks for.
            chance: from 0 to 1, which part of the pause.
        """
        self._failures += 1
        self._again = now + max(wait, _PAUSES.pause(self._failures, chance))

    def leave(self) -> tuple[WaitingLine, ...]:
        """Return all that waits, for whoever goes on with it."""
        current = self._current.lines if self._current is not None else ()
        return (*current, *self._lines)

    def resume(self, lines: Iterable[WaitingLine]) -> None:
        """Take lines that another queue has left."""
        for line in lines:
            self.add(line)

    # -- what it decides -----------------------------------------------------------------------------------------------

    def _wait_of(self, line: WaitingLine) -> float:
        if self._gather:
            return self._gather
        return PAIR_WAIT if line.notice and self._waits else 0.0

    def _recent(self, now: float) -> deque[float]:
        while self._sent and self._sent[0] + _MINUTE <= now:
            self._sent.popleft()
        return self._sent

    def _expire(self, now: float) -> None:
        if self._current is not None and all(each.added + self._keep < now for each in self._current.lines):
            self._late += len(self._current.lines) + self._current.late
            self.expired += len(self._current.lines)
            self._more.update(self._current.more)
            self._current = None
        while self._lines and self._lines[0].added + self._keep < now:
            self._lines.popleft()
            self._late += 1
            self.expired += 1

    def _one(self, now: float) -> NotifyBatch:
        """Return the next line. Where more wait than this minute takes, the least important are folded first."""
        left = self._per_minute - len(self._recent(now))
        while len(self._lines) > left:
            self._fold_least()
        ready = [each for each in self._lines if each.added + self._wait_of(each) <= now] or list(self._lines)
        line = ready[0]
        self._lines.remove(line)
        if left == 1 or not self._lines:  # the row ends here
            return self._batch((line,))
        return NotifyBatch(id=_id_of((line,)), lines=(line,))

    def _digest(self) -> NotifyBatch:
        while len(self._lines) > MOST_DIGEST:
            self._fold_least()
        lines = tuple(self._lines)
        self._lines.clear()
        return self._batch(lines)

    def _batch(self, lines: tuple[WaitingLine, ...]) -> NotifyBatch:
        more, late = dict(self._more), self._late
        self._more.clear()
        self._late = 0
        return NotifyBatch(id=_id_of(lines), lines=lines, more=more, late=late)


def _id_of(lines: tuple[WaitingLine, ...]) -> str:
    return hashlib.sha256("\n".join(each.key for each in lines).encode()).hexdigest()[:40]


__all__ = ["MOST_DIGEST", "MOST_WAITING", "PAIR_WAIT", "ChannelQueue", "NotifyBatch", "WaitingLine"]
