"""What counts as flat: noise, peaks and warm-up do; a leak does not, however slow, in a run of 15 minutes."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.soak.flatness import Quantity, judge
from tests.soak.measure import Series, table, used_by

MIB = 1024 * 1024.0
TIMES = [3.0 * n for n in range(300)]


def series(value: Callable[[float], float]) -> list[float]:
    return [value(t) for t in TIMES]


def noise(size: float, seed: int = 1) -> Callable[[], float]:
    dice = random.Random(seed)
    return lambda: dice.uniform(-size, size)


@pytest.mark.parametrize("seed", range(20))
def test_noise_peaks_and_a_warm_up_are_flat(seed: int) -> None:
    shake = noise(3 * MIB, seed)
    dice = random.Random(seed)
    values = series(
        lambda t: 60 * MIB + min(t, 300) / 300 * 20 * MIB + shake() + (40 * MIB if dice.random() < 0.1 else 0)
    )
    assert judge("rss", TIMES, values).flat


@pytest.mark.parametrize(
    ("quantity", "start", "per_minute"), [("files", 20, 1.0), ("threads", 9, 1.0), ("rss", 60 * MIB, MIB / 2)]
)
@pytest.mark.parametrize("seed", range(5))
def test_a_slow_leak_is_found(quantity: Quantity, start: float, per_minute: float, seed: int) -> None:
    shake = noise(MIB if quantity == "rss" else 0.4, seed)
    assert not judge(quantity, TIMES, series(lambda t: start + per_minute * t / 60 + shake())).flat


def test_one_step_is_no_leak() -> None:
    assert judge("files", TIMES, series(lambda t: 20.0 if t < 800 else 26.0)).flat
    assert judge("threads", TIMES, series(lambda t: 9.0 if t < 700 else 14.0)).flat is True


def test_too_few_points_are_no_verdict() -> None:
    with pytest.raises(ValueError, match="measure for longer"):
        judge("files", [1, 2, 3], [1, 1, 1])


def test_the_table_names_what_grows() -> None:
    leaky = Series(name="leaky", times=TIMES)
    leaky.values = {"rss": [60 * MIB] * 300, "files": [20 + t / 30 for t in TIMES], "threads": [9.0] * 300}
    assert "| leaky | 60.0 -> 60.0 (60.0) |" in table([leaky])
    assert "grows: files |" in table([leaky])


def test_a_process_is_measured_from_outside() -> None:
    import os

    used = used_by(os.getpid())
    assert used["rss"] > MIB
    assert used["files"] >= 3
    assert used["threads"] >= 1
