"""When a node describes itself unasked: spread, after a change, and never for lack of a connection lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deploykit.daemons.agent.selfdescription import LOOK, SPREAD, DescriptionTimes


def middle(low: float, high: float) -> float:
    return (low + high) / 2


def test_nothing_is_due_before_there_is_a_connection() -> None:
    times = DescriptionTimes(300.0, middle)
    assert not times.is_due(1e9)
    assert not times.may_have_changed(1e9)


def test_a_connection_makes_one_due_and_the_next_follows_after_the_time_that_is_set() -> None:
    times = DescriptionTimes(300.0, middle)
    times.connected(100.0)
    assert not times.is_due(100.0)
    assert times.is_due(100.0 + SPREAD)
    times.sent(101.0)
    assert not times.is_due(400.9)
    assert times.is_due(401.0)


def test_a_change_is_looked_at_soon_and_everything_now_and_then() -> None:
    times = DescriptionTimes(300.0, middle)
    times.connected(0.0)
    times.sent(1.0)
    times.changed(2.0)
    assert times.may_have_changed(2.0 + SPREAD)
    assert not times.is_due(2.0 + SPREAD)
    times.looked(3.0)
    assert not times.may_have_changed(3.0)
    assert times.may_have_changed(3.0 + LOOK)


def test_without_a_connection_nothing_is_tried_until_there_is_one() -> None:
    times = DescriptionTimes(300.0, middle)
    times.connected(0.0)
    times.not_sent()
    assert not times.is_due(1e9)
    assert times.wait(0.0) == LOOK
    times.connected(5.0)
    assert times.is_due(5.0 + SPREAD)


@given(st.floats(10, 1e6), st.floats(0, 1e6), st.randoms(use_true_random=False))
def test_periodic_ones_are_spread_by_a_tenth(every: float, now: float, random: object) -> None:
    times = DescriptionTimes(every, random.uniform)  # type: ignore[attr-defined]
    times.connected(now)
    assert times.is_due(now + SPREAD)
    times.sent(now)
    assert not times.is_due(now + 0.89 * every)
    assert times.is_due(now + 1.11 * every + 1e-3)
    assert 0 <= times.wait(now) <= LOOK
