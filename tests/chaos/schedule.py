"""What a driver does next, and for how long: drawn from a seed alone, so that a run can be repeated.

Every kind comes once before any comes again, in an order drawn anew each time; a short run still meets most of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import attrs


@attrs.frozen(kw_only=True, slots=True)
class Step:
    """One thing to do.

    Args:
        pause: seconds to wait before.
        kind: what to do.
        seconds: how long it lasts.
        chance: a number from 0 to 1 for whatever else has to be chosen.
    """

    pause: float
    kind: str
    seconds: float
    chance: float


def steps(seed: str, kinds: Sequence[str], *, pause: float = 1.0, seconds: float = 3.0) -> Iterator[Step]:
    """Yield steps without end.

    Args:
        pause, seconds: the longest pause and the longest step.

    >>> one, other = steps("7", ["cut", "kill"]), steps("7", ["cut", "kill"])
    >>> [next(one) for _ in range(9)] == [next(other) for _ in range(9)]
    True
    """
    dice = random.Random(seed)
    while True:
        for kind in dice.sample(kinds, len(kinds)):
            yield Step(
                pause=dice.uniform(0.1, 1.0) * pause,
                kind=kind,
                seconds=dice.uniform(0.05, 1.0) * seconds,
                chance=dice.random(),
            )
