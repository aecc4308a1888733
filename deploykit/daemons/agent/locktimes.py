"""When a node asks for statements on locks, and when it publishes what others lack. Pure: `now` is monotonic seconds.

Rules:

* All of a fleet may know an answer. Each node waits a random time and is silent when another was quicker.
* The times are drawn so that few draw a short one: of thousands of nodes, a handful answer.
* A statement that was on the wire a moment ago is not sent at once again: it is no amplifier.
* Who is about to ask, and hears two others ask who know no more, does not ask: the answers reach all. One is not
  enough: it may have asked a moment before this node listened, and then gets no answer now.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Final

from deploykit.names import SiteName

#: Seconds within which a question, and an answer, is sent.
ASK_WITHIN: Final = 3.0
ANSWER_WITHIN: Final = 3.0
#: Least seconds between two publications of one site's statement that this node hears or makes.
AT_MOST_EVERY: Final = 1.0
#: Least seconds between two questions.
ASK_EVERY: Final = 600.0
#: After the questions of so many others a node needs none of its own.
_SPARED_BY: Final = 2
#: How many nodes the draw is made for.
_GROUP: Final = 10_000


def draw_delay(within: float, uniform: Callable[[], float] = random.random) -> float:
    """Return a random delay of at most `within` seconds, of which short ones are rare.

    The truncated exponential distribution of the feedback of multicast protocols (RFC 5401, section 3.2.4): among
    `_GROUP` nodes the shortest delay is still short, and few draw one that is nearly as short.

    >>> draw_delay(3.0, lambda: 1.0), round(draw_delay(3.0, lambda: 0.0), 3)
    (3.0, 0.0)
    """
    steep = math.log(_GROUP) + 1
    return within / steep * math.log1p((math.exp(steep) - 1) * uniform())


class LockTimes:
    """Decides when a node asks and answers. Not for several threads.

    Args:
        draw: returns a delay of at most so many seconds.
    """

    def __init__(self, draw: Callable[[float], float] = draw_delay) -> None:
        self._draw = draw
        self._owed: dict[SiteName, float] = {}
        self._heard: dict[SiteName, float] = {}
        self._ask_at = float("inf")
        self._asked = float("-inf")
        self._others: set[str] = set()

    # -- answers -------------------------------------------------------------------------------------------------------

    def owe(self, site: SiteName, now: float) -> None:
        """Note that others lack the statement that decides on a site."""
        if site not in self._owed:
            last = self._heard.get(site, float("-inf"))
            self._owed[site] = max(now, last + AT_MOST_EVERY) + self._draw(ANSWER_WITHIN)

    def on_the_wire(self, site: SiteName, now: float) -> None:
        """Note that the statement that decides on a site was just published, by whom ever: nobody lacks it now."""
        self._owed.pop(site, None)
        self._heard[site] = now

    def due(self, now: float) -> list[SiteName]:
        """Return the sites whose statements are to be published now; they are owed no more."""
        due = [site for site, at in self._owed.items() if at <= now]
        for site in due:
            self.on_the_wire(site, now)
        return due

    # -- questions -----------------------------------------------------------------------------------------------------

    def ask_soon(self, now: float) -> None:
        """Note that this node may have missed statements."""
        if self._ask_at == float("inf"):
            self._others.clear()
        self._ask_at = min(self._ask_at, max(now, self._asked + ASK_EVERY) + self._draw(ASK_WITHIN))

    def ask_is_due(self, now: float) -> bool:
        """Return whether it is time to ask; then it counts as asked."""
        if now < self._ask_at:
            return False
        self._ask_at, self._asked = float("inf"), now
        return True

    def another_asked(self, by: str, theirs: Mapping[str, object], ours: Mapping[SiteName, int], now: float) -> bool:
        """Note another node's question; return whether it spares this node its own.

        Args:
            by: the key that signed it.
            theirs: the serials that they know.
            ours: the serials that this node would name.
            now: monotonic seconds.
        """
        if self._ask_at == float("inf") or any(not _knows_no_more(theirs.get(site), n) for site, n in ours.items()):
            return False
        if by not in self._others:
            self._others.add(by)
            self._ask_at = now + self._draw(ASK_WITHIN)  # of all who still ask, few are quick once more
        if len(self._others) < _SPARED_BY:
            return False
        self._ask_at, self._asked = float("inf"), now
        return True

    def wait(self, now: float) -> float:
        """Return the seconds until something is due; infinite while nothing is."""
        return max(0.0, min(self._ask_at, min(self._owed.values(), default=float("inf"))) - now)


def _knows_no_more(serial: object, ours: int) -> bool:
    return isinstance(serial, int) and serial <= ours
