"""How a node asks for a mandate that it lacks: `ApprovalWanted`, signed, through the outbox.

Rules:

* The same mandate is asked for at most once in some seconds, and only few are asked for in that time. Whoever names
  many mandates keeps nobody else from having theirs asked for.
* Only a command that its signer may send makes the node ask: nobody else can make it speak.
* How often it was asked because of one command is known: at last the command is refused, and not asked about for ever.
* Of a copy that was refused it is kept why, in words that name keys alone: that is the answer then.
"""

from __future__ import annotations

import threading
import time
from typing import Final, TypeVar

from deploykit.daemons.agent.reports import Reporter
from deploykit.messages import ApprovalWanted, DeployRequested
from deploykit.names import NodeName

K = TypeVar("K")
V = TypeVar("V")

#: Seconds until the same mandate is asked for again, and most mandates that are asked for in that time.
ASK_EVERY: Final = 5.0
_MOST_ASKED: Final = 20
#: As many are asked for because of commands of one key, whatever others have asked for.
_ALWAYS_ASKED: Final = 3
#: Most commands of which it is known how often was asked for them, and most refused copies that are known.
_REMEMBERED: Final = 1000


class ApprovalAsker:
    """Asks for the mandates that one node lacks. Use it from any thread.

    Args:
        node: who asks.
        reporter: queues the questions.
    """

    def __init__(self, node: NodeName, reporter: Reporter) -> None:
        self._node = node
        self._reporter = reporter
        self._lock = threading.Lock()
        self._asked: dict[str, tuple[float, str]] = {}
        self._ever: dict[str, int] = {}
        self._times: dict[tuple[str, str], int] = {}
        self._refused: dict[str, str] = {}

    def ask(self, request: DeployRequested, mandate: str, key: str) -> None:
        """Ask for the mandate of a command, unless that was done a moment ago.

        Args:
            request: the command.
            mandate: its digest.
            key: who signed the command.

        Raises:
            OutboxError: there is no room for the question. Try again.
        """
        now = time.monotonic()
        with self._lock:
            for old in [each for each, (at, _) in self._asked.items() if now - at >= ASK_EVERY]:
                del self._asked[old]
            of_key = sum(by == key for _, by in self._asked.values())
            if mandate in self._asked or (len(self._asked) >= _MOST_ASKED and of_key >= _ALWAYS_ASKED):
                return
            self._asked[mandate] = now, key
        try:
            self._reporter.report(
                ApprovalWanted(
                    source=f"agent/{self._node}",
                    correlation_id=request.correlation_id or request.id,
                    node=self._node,
                    site=request.site,
                    rollout=request.rollout or request.id,
                    mandate=mandate,
                    request=request.id,
                )
            )
        except BaseException:
            with self._lock:
                self._asked.pop(mandate, None)
            raise
        with self._lock:
            remember(self._ever, mandate, self.count(mandate) + 1)
            remember(self._times, (mandate, request.id), self.times(request, mandate) + 1)

    def times(self, request: DeployRequested, mandate: str) -> int:
        """Return how often a mandate was asked for because of this command."""
        return self._times.get((mandate, request.id), 0)

    def waits(self, mandate: str) -> bool:
        """Return whether a mandate was asked for a moment ago: the answer may be under way."""
        with self._lock:
            asked = self._asked.get(mandate)
        return asked is not None and time.monotonic() - asked[0] < ASK_EVERY

    def count(self, mandate: str) -> int:
        """Return how often a mandate was asked for."""
        return self._ever.get(mandate, 0)

    def refused(self, mandate: str, why: str) -> None:
        """Note why a copy of a mandate was refused, if it is one that was asked for."""
        with self._lock:
            if mandate in self._ever:
                remember(self._refused, mandate, why)

    def why_refused(self, mandate: str) -> str:
        """Return why the last refused copy of a mandate was, or an empty string."""
        return self._refused.get(mandate, "")


def remember(memory: dict[K, V], key: K, value: V, most: int = _REMEMBERED) -> None:
    """Put an entry into a dictionary that keeps the newest."""
    memory.pop(key, None)
    memory[key] = value
    while len(memory) > most:
        del memory[next(iter(memory))]
