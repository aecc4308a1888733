"""A new password is kept in memory for one look, one login, and a minute."""

from __future__ import annotations

from deploykit.web.actions.shown import AccessGranted, AccessRow
from deploykit.web.pages.shownonce import ShownOnce

GRANTED = AccessGranted(row=AccessRow(site="docs", user="dan"), password="not-a-real-one")


def test_it_is_taken_once_and_by_its_login_alone() -> None:
    kept = ShownOnce()
    id_ = kept.keep("ada/1", GRANTED)
    assert kept.take("ada/2", id_) is None
    assert kept.take("ada/1", id_) == GRANTED, "another login has not used it up"
    assert kept.take("ada/1", id_) is None


def test_it_is_forgotten_after_a_minute_whether_anybody_asks_or_not() -> None:
    now = [0.0]
    kept = ShownOnce(clock=lambda: now[0])
    first = kept.keep("ada", GRANTED)
    now[0] = 60.0
    assert kept.take("ada", first) is None
    kept.keep("ada", GRANTED)
    now[0] = 120.0
    kept.keep("ada", GRANTED)
    assert len(kept._kept) == 1


def test_memory_is_bounded() -> None:
    kept = ShownOnce()
    ids = [kept.keep("ada", GRANTED) for _ in range(1001)]
    assert kept.take("ada", ids[0]) is None
    assert kept.take("ada", ids[1]) == GRANTED
