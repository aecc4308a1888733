"""Is a series of measurements flat? Pure.

The rule: the first half of a run is the warm-up (caches fill, threads start). Of the second half

* the rise is the Theil-Sen slope (the median of the slopes of all pairs of points, which a few peaks do not move) times
  the length of the half; it may be at most what `ALLOWED` says,
* and the median of its last third may lie above the median of its first third by at most the same.

Both must be broken before a series counts as growing: a step that happened once has no slope, and a slope within the
noise has no step. A leak of one descriptor a minute, or of 1 MiB in 4 minutes, breaks both in a run of 15 minutes.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final, Literal

import attrs

Quantity = Literal["rss", "files", "threads"]

#: What may be gained over the second half: at least so much, and at least such a part of the median.
ALLOWED: Final[dict[Quantity, tuple[float, float]]] = {
    "rss": (1024 * 1024.0, 0.015),
    "files": (3.0, 0.0),  # a request to the build server and a page may be on their way at one look and not at another
    "threads": (1.0, 0.0),
}
_POINTS: Final = 200


@attrs.frozen(kw_only=True, slots=True)
class Finding:
    """What came of one series: medians of the first and last third of its second half, the rise, what was allowed."""

    early: float
    late: float
    rise: float
    allowed: float
    most: float

    @property
    def flat(self) -> bool:
        """Whether the series does not grow."""
        return self.rise <= self.allowed or self.late - self.early <= self.allowed


def judge(quantity: Quantity, times: Sequence[float], values: Sequence[float]) -> Finding:
    """Judge a series of at least 12 points.

    >>> judge("files", range(100), [10] * 100).flat, judge("files", range(100), range(100)).flat
    (True, False)
    """
    middle = (times[0] + times[-1]) / 2
    points = [(t, v) for t, v in zip(times, values, strict=True) if t >= middle]
    if len(points) < 6:
        raise ValueError("too few points: measure for longer, or more often")
    third = len(points) // 3
    early = statistics.median(v for _, v in points[:third])
    late = statistics.median(v for _, v in points[-third:])
    least, part = ALLOWED[quantity]
    return Finding(
        early=early,
        late=late,
        rise=slope(points) * (points[-1][0] - points[0][0]),
        allowed=max(least, part * early),
        most=max(values),
    )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the Theil-Sen slope; of very many points only some are compared.

    >>> slope([(0, 1), (1, 3), (2, 500), (3, 7), (4, 9)])
    2.0
    """
    some = points[:: max(1, len(points) // _POINTS)]
    found = [(v2 - v1) / (t2 - t1) for i, (t1, v1) in enumerate(some) for t2, v2 in some[i + 1 :] if t2 > t1]
    return statistics.median(found)
