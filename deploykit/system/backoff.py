"""The pause before the next attempt: grows with each failure, spread by chance. Pure.

Rules:

* The ceiling grows by a factor from `initial` to `maximum`.
* A pause is a part of the ceiling between `low` and `high`. Full jitter (0 to 1) spreads a thousand nodes whose broker
  restarted; equal bounds leave nothing to chance.
* A floor keeps a peer that refuses at once from being hammered.
"""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True, slots=True)
class Backoff:
    """How long to pause before each attempt.

    Args:
        initial: ceiling of the first pause, seconds.
        maximum: ceiling of every pause, seconds.
        multiplier: growth of the ceiling from one attempt to the next.
        minimum: floor of every pause, seconds.
        low, high: the smallest and the largest part of the ceiling.
    """

    initial: float
    maximum: float
    multiplier: float = 2.0
    minimum: float = 0.0
    low: float = 0.0
    high: float = 1.0

    def pause(self, attempt: int, chance: float = 1.0) -> float:
        """Return the seconds to wait after `attempt` failures.

        >>> [Backoff(initial=0.5, maximum=3.0).pause(failures) for failures in (1, 2, 3, 4)]
        [0.5, 1.0, 2.0, 3.0]

        Args:
            attempt: failures so far, 1 or more.
            chance: from 0 to 1, where between `low` and `high` the pause lies.
        """
        part = self.low + (self.high - self.low) * chance
        return max(min(self.minimum, self.maximum), self._ceiling(attempt) * part)

    def _ceiling(self, attempt: int) -> float:
        try:
            return min(self.maximum, self.initial * self.multiplier ** max(0, attempt - 1))
        except OverflowError:
            return self.maximum
