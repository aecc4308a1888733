"""Pauses grow to their ceiling, keep to their floor, and are spread as asked."""

from __future__ import annotations

import subprocess
import sys
from random import random

from deploykit.system.backoff import Backoff


def test_pauses_grow_with_jitter_to_the_ceiling_and_keep_to_the_floor() -> None:
    backoff = Backoff(initial=0.1, maximum=0.5, minimum=0.02)
    first = [backoff.pause(1, random()) for _ in range(200)]
    late = [backoff.pause(50, random()) for _ in range(200)]
    assert max(first) <= 0.1
    assert max(late) <= 0.5
    assert max(late) > 0.3
    assert min(first + late) >= 0.02
    assert len(set(late)) > 100


def test_a_thousand_failed_rounds_do_not_overflow() -> None:
    assert Backoff(initial=0.1, maximum=30.0).pause(100_000) <= 30


def test_without_chance_the_pause_is_the_ceiling() -> None:
    backoff = Backoff(initial=1.0, maximum=5.0, multiplier=3.0)
    assert [backoff.pause(n) for n in (1, 2, 3, 100)] == [1.0, 3.0, 5.0, 5.0]


def test_chance_moves_a_pause_between_the_two_parts() -> None:
    backoff = Backoff(initial=2.0, maximum=100.0, low=0.5, high=1.5)
    assert [backoff.pause(1, chance) for chance in (0.0, 0.5, 1.0)] == [1.0, 2.0, 3.0]


def test_a_floor_above_the_ceiling_gives_way_to_it() -> None:
    assert Backoff(initial=0.1, maximum=0.01, minimum=0.02).pause(3) == 0.01


def test_it_loads_nothing_slow() -> None:
    code = "import sys, deploykit.system.backoff; print({'tenacity', 'random', 'asyncio'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
