"""Which other agents run under our node's name. Pure: ids, messages and times come as arguments.

    we announce ourselves -> a twin answers, with our announcement's id -> we know that it runs

Rules:

* Only an answer to one of our own last announcements counts. So neither a replay nor an earlier run of this agent makes
  a twin, and no clocks are compared.
* A twin that leaves some announcements in a row unanswered is gone.
* The caller passes on only what the node's own key signed.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import Final, Literal

import attrs

from deploykit.messages import AgentInstance, NodeDescribed, one_line

Heard = Literal["nothing", "stranger", "answer", "twin", "again"]

#: Announcements whose answers count, and how many of them a twin may leave unanswered.
_LAST: Final = 4
_UNANSWERED: Final = 3
#: Most answers in one second: replayed announcements get no more.
_ANSWERS: Final = 10
#: Most twins that are kept.
_MOST: Final = 5


@attrs.define(kw_only=True, slots=True)
class Twin:
    """Another agent under our name: when it answered last, and how many announcements it left unanswered since."""

    agent: AgentInstance
    seen: datetime
    unanswered: int = 0


class Twins:
    """The twins that one agent knows. Not thread-safe.

    Args:
        instance: this agent's own id.
    """

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._twins: dict[str, Twin] = {}
        self._announced: deque[str] = deque(maxlen=_LAST)
        self._second = 0.0
        self._answers = 0

    @property
    def known(self) -> tuple[Twin, ...]:
        """The twins that answered lately."""
        return tuple(self._twins.values())

    def announced(self, announcement: str) -> tuple[Twin, ...]:
        """Note the id of an announcement that is sent now; return the twins that count as gone."""
        for twin in self._twins.values():
            twin.unanswered += 1
        gone = tuple(twin for twin in self._twins.values() if twin.unanswered > _UNANSWERED)
        for twin in gone:
            del self._twins[twin.agent.instance]
        self._announced.append(announcement)
        return gone

    def heard(self, message: NodeDescribed, now: float, clock: datetime) -> Heard:
        """Judge a message that our node's key signed.

        Args:
            now: seconds, monotonic.
            clock: the wall clock, for people.

        Returns:
            `stranger`: an unknown instance announced itself: answer it, and announce ourselves;
            `answer`: a known one did: answer it; `twin`: a new twin is proven; `again`: a known twin answered.
        """
        if not message.instance or message.instance == self._instance:
            return "nothing"
        known = self._twins.get(message.instance)
        if message.request is None:
            if not self._may_answer(now):
                return "nothing"
            return "answer" if known else "stranger"
        if message.request not in self._announced:
            return "nothing"
        if known is None and len(self._twins) >= _MOST:
            return "nothing"
        agent = AgentInstance(instance=one_line(message.instance, 64), host=one_line(message.host, 200))
        self._twins[message.instance] = Twin(agent=agent, seen=clock)
        return "again" if known else "twin"

    def _may_answer(self, now: float) -> bool:
        if now - self._second >= 1:
            self._second, self._answers = now, 0
        self._answers += 1
        return self._answers <= _ANSWERS
