"""When questions are answered: one answer for each asker and second. Pure: `now` is an argument.

Rules:

* An asker is a key. Whoever replays its questions shares its second, and gains nothing.
* Another question within the second waits its turn: two commands of one operator both get an answer.
* A copy of a question that waits, or that was answered within the last second, is dropped.
* Few wait. What comes beyond is dropped: a node is no amplifier.
"""

from __future__ import annotations

from typing import Final, Literal

import attrs

from deploykit.messages import NodeQueried
from deploykit.trust.check import Verified

#: Least seconds between two answers to one key.
INTERVAL: Final = 1.0
#: Most questions that wait: of one key, and in all.
MAX_OF_KEY: Final = 4
MAX_WAITING: Final = 64


@attrs.frozen(kw_only=True, slots=True)
class AcceptedQuestion:
    """A question that is to be answered.

    Args:
        question: it.
        asked: who signed it.
    """

    question: NodeQueried
    asked: Verified


class QuestionQueue:
    """The questions that wait. Not for several threads."""

    def __init__(self) -> None:
        self._waiting: list[AcceptedQuestion] = []
        self._answered: dict[str, float] = {}
        self._copies: dict[str, float] = {}

    def offer(self, accepted: AcceptedQuestion, now: float) -> Literal["waits", "repeated", "full"]:
        """Take a question, unless it is a copy or too many wait.

        Args:
            accepted: the question.
            now: monotonic seconds.
        """
        self._forget(now)
        key = accepted.asked.key
        if self.knows(accepted.asked.copy, now):
            return "repeated"
        if len(self._waiting) >= MAX_WAITING or sum(e.asked.key == key for e in self._waiting) >= MAX_OF_KEY:
            return "full"
        self._waiting.append(accepted)
        return "waits"

    def knows(self, copy: str, now: float) -> bool:
        """Return whether a signed copy waits, or was answered within the last second.

        Args:
            copy: its name, from `copy_digest`.
            now: monotonic seconds.
        """
        self._forget(now)
        return copy in self._copies or any(each.asked.copy == copy for each in self._waiting)

    def take(self, now: float) -> AcceptedQuestion | None:
        """Return the next question that may be answered now, the oldest first; it counts as answered."""
        self._forget(now)
        for at, accepted in enumerate(self._waiting):
            if accepted.asked.key not in self._answered:
                del self._waiting[at]
                self._answered[accepted.asked.key] = self._copies[accepted.asked.copy] = now + INTERVAL
                return accepted
        return None

    def wait(self, now: float) -> float:
        """Return the seconds until `take` returns a question; infinite while none waits."""
        ends = (self._answered.get(each.asked.key, now) for each in self._waiting)
        return max(0.0, min(ends, default=float("inf")) - now)

    def _forget(self, now: float) -> None:
        for table in (self._answered, self._copies):
            while table and next(iter(table.values())) <= now:  # in the order in which they end
                del table[next(iter(table))]
