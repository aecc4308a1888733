"""What the head of every page says: connected or since when not, whether it is complete, what was left out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from deploykit.web.feedhealth import FeedHealth

START = datetime(2026, 11, 30, 12, tzinfo=UTC)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def later(self, seconds: float) -> datetime:
        self.now += timedelta(seconds=seconds)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_before_the_first_connection_it_is_away_since_the_start(clock: Clock) -> None:
    health = FeedHealth(clock)
    clock.later(5)
    health.lost("connection refused")
    shown = health.shown
    assert (shown.connected, shown.away_since, shown.reason) == (False, START, "connection refused")
    assert not shown.rebuilding


def test_a_connection_that_is_lost_again_and_again_is_away_since_the_first_loss(clock: Clock) -> None:
    health = FeedHealth(clock)
    health.connected()
    lost = clock.later(10)
    health.lost("reset by peer")
    clock.later(10)
    health.lost("connection refused")
    assert health.shown.away_since == lost
    back = clock.later(10)
    health.connected()
    shown = health.shown
    assert (shown.connected, shown.away_since, shown.reason) == (True, None, "")
    assert (shown.rebuilding, shown.complete_since) == (True, back)


def test_open_pages_hear_of_a_message_that_is_not_believed_and_of_a_flood_only_now_and_then(clock: Clock) -> None:
    told: list[int] = []
    health = FeedHealth(clock, on_change=lambda: told.append(health.shown.distrusted))
    health.distrusted("not signed")
    at = clock.later(3)
    health.distrusted("not signed", tell=False)
    assert told == [1]
    assert (health.shown.distrusted, health.shown.distrusted_at) == (2, at)


def test_an_answered_question_ends_the_rebuild(clock: Clock) -> None:
    health = FeedHealth(clock)
    health.connected()
    asked = clock.later(1)
    health.asked(asked, 3)
    shown = health.shown
    assert (shown.rebuilding, shown.asked, shown.answered, shown.complete_since) == (False, asked, 3, START)


def test_where_nodes_cannot_be_asked_no_page_waits_for_a_rebuild(clock: Clock) -> None:
    health = FeedHealth(clock)
    health.connected()
    health.not_asked("no key")
    assert not health.shown.rebuilding
    assert health.cannot_ask == "no key"
    health.asked(START, 1)
    assert health.cannot_ask == ""


def test_pages_hear_of_a_change_and_not_of_what_stays(clock: Clock) -> None:
    changes: list[bool] = []
    health = FeedHealth(clock, on_change=lambda: changes.append(True))
    health.connected()
    health.lost("reset")
    health.lost("reset")
    assert len(changes) == 2


def test_a_reason_from_outside_is_one_short_line(clock: Clock) -> None:
    health = FeedHealth(clock)
    health.lost("line\nline\x1b[31m" + "x" * 1000)
    health.distrusted("why\n" + "x" * 1000)
    for text in (health.shown.reason, health.shown.distrust):
        assert text.isprintable()
        assert len(text) <= 310
