"""How long to pause after a whole broker list failed: pure but for the dice, which are tenacity's.

Full jitter (a random time up to an exponentially growing ceiling) spreads a thousand nodes whose broker restarted.
A small floor keeps a broker that refuses at once from being hammered.
"""

from __future__ import annotations

import attrs
from tenacity import RetryCallState, Retrying
from tenacity.wait import wait_base, wait_random_exponential


@attrs.frozen(kw_only=True, slots=True)
class Backoff:
    """The pause before each round of attempts.

    Args:
        initial: ceiling of the first pause, seconds.
        maximum: ceiling of all of them, seconds.
        multiplier: growth of the ceiling from round to round.
        minimum: floor of all of them, seconds.
    """

    initial: float = 0.1
    maximum: float = 30.0
    multiplier: float = 2.0
    minimum: float = 0.02

    def pause(self, rounds_failed: int) -> float:
        """Seconds to wait after `rounds_failed` rounds (1 or more) without a connection."""
        state = RetryCallState(Retrying(), None, (), {})
        state.attempt_number = max(1, rounds_failed)
        return min(self.maximum, max(self.minimum, float(self._strategy()(state))))

    def _strategy(self) -> wait_base:
        return wait_random_exponential(multiplier=self.initial, max=self.maximum, exp_base=self.multiplier)
