"""When a node asks for locks and when it answers: spread, suppressed, and never an amplifier."""

from __future__ import annotations

import itertools
import random

from deploykit.daemons.agent.locktimes import ANSWER_WITHIN, ASK_EVERY, ASK_WITHIN, AT_MOST_EVERY, LockTimes, draw_delay
from deploykit.names import SiteName

SHOP, BLOG = SiteName("shop"), SiteName("blog")


def at_once(within: float) -> float:
    return 0.0


def at_last(within: float) -> float:
    return within


def test_of_thousands_of_nodes_one_answers_soon_and_few_at_once() -> None:
    """With evenly drawn delays a hundred of 10,000 nodes would speak within 1 % of the time."""
    draws = random.Random(1)
    for nodes, soon in ((10_000, 0.8), (100, 2.2), (1, ANSWER_WITHIN)):
        delays = sorted(draw_delay(ANSWER_WITHIN, draws.random) for _ in range(nodes))
        assert 0 <= delays[0] <= soon
        assert delays[-1] <= ANSWER_WITHIN
        assert sum(delay <= delays[0] + 0.1 for delay in delays) <= 12, "all who draw nearly the shortest delay answer"


def test_an_answer_waits_and_is_dropped_when_another_was_quicker() -> None:
    times = LockTimes(at_last)
    times.owe(SHOP, 100.0)
    times.owe(BLOG, 100.0)
    assert times.due(100.0) == []
    assert times.wait(100.0) == ANSWER_WITHIN
    times.on_the_wire(SHOP, 101.0)
    assert times.due(100.0 + ANSWER_WITHIN) == [BLOG]
    assert times.due(200.0) == [], "it is owed once"
    assert times.wait(200.0) == float("inf")


def test_questions_in_any_number_make_one_answer_a_second() -> None:
    times = LockTimes(at_once)
    sent = []
    for tick in range(1000):
        times.owe(SHOP, tick / 100)
        sent += [tick / 100 for _ in times.due(tick / 100)]
    assert len(sent) == 10
    assert min(b - a for a, b in itertools.pairwise(sent)) >= AT_MOST_EVERY


def test_a_statement_heard_a_moment_ago_counts_too() -> None:
    times = LockTimes(at_once)
    times.on_the_wire(SHOP, 10.0)
    times.owe(SHOP, 10.5)
    assert times.due(10.9) == []
    assert times.due(10.0 + AT_MOST_EVERY) == [SHOP]


def test_a_node_asks_once_and_then_not_for_ten_minutes() -> None:
    times = LockTimes(at_last)
    times.ask_soon(0.0)
    times.ask_soon(1.0)
    assert not times.ask_is_due(ASK_WITHIN - 0.1)
    assert times.ask_is_due(ASK_WITHIN)
    assert not times.ask_is_due(1000.0)
    times.ask_soon(10.0)
    assert not times.ask_is_due(ASK_EVERY)
    assert times.ask_is_due(ASK_WITHIN + ASK_EVERY + ASK_WITHIN)


def test_one_node_that_asks_again_and_again_puts_no_question_off() -> None:
    times = LockTimes(at_last)
    times.ask_soon(0.0)
    for now in (1.0, 2.0, 3.0, 4.0):
        assert not times.another_asked("web2", {"shop": 0}, {SHOP: 0}, now)
    assert times.ask_is_due(4.0)


def test_the_questions_of_two_nodes_that_know_no_more_spare_ones_own() -> None:
    ours = {SHOP: 5, BLOG: 0}
    for theirs, spares in (
        ({"shop": 5, "blog": 0}, True),
        ({"shop": 0, "blog": 0, "wiki": 9}, True),
        ({"shop": 6, "blog": 0}, False),
        ({"shop": 0}, False),
        ({"shop": "0", "blog": None}, False),
        ({}, False),
    ):
        times = LockTimes(at_last)
        times.ask_soon(0.0)
        assert not times.another_asked("web2", theirs, ours, 1.0), "it may get no answer"
        assert not times.another_asked("web2", theirs, ours, 1.0), "the same node"
        assert times.another_asked("web3", theirs, ours, 1.0) is spares
        assert times.ask_is_due(10.0) is not spares
    idle = LockTimes(at_last)
    assert not idle.another_asked("web2", {"shop": 0, "blog": 0}, ours, 1.0), "there is nothing to spare"
