"""Dice for tests that try a few of many cases: the same throw each time in CI, a new one everywhere else."""

from __future__ import annotations

import random

from tests.support.needs import in_ci


def dice() -> random.Random:
    """Return a source of random numbers. What lands or blocks a change must not hang on chance."""
    return random.Random(0) if in_ci() else random.SystemRandom()
