"""What a page shows after an action is kept for its owner alone, for a while, and bounded in number."""

from __future__ import annotations

from deploykit.web.pages.keptbriefly import BriefStore
from deploykit.web.pages.outcomes import OUTCOMES
from deploykit.web.pages.shownonce import SHOWN_ONCE


def test_what_is_found_can_be_seen_again_but_not_by_others_and_not_for_ever() -> None:
    now = [0.0]
    kept = BriefStore[str](600.0, clock=lambda: now[0])
    id_ = kept.keep("ada", "done")
    assert kept.find("ada", id_) == "done"
    assert kept.find("ada", id_) == "done", "the page was loaded again"
    assert kept.find("bob", id_) is None
    assert kept.find("ada", id_ + "x") is None
    now[0] = 599.0
    assert kept.find("ada", id_) == "done"
    now[0] = 600.0
    assert kept.find("ada", id_) is None


def test_what_is_taken_is_taken_once_and_by_its_owner_alone() -> None:
    kept = BriefStore[str](60.0)
    id_ = kept.keep("ada/1", "secret")
    assert kept.take("ada/2", id_) is None
    assert kept.take("ada/1", id_) == "secret", "another login has not used it up"
    assert kept.take("ada/1", id_) is None
    assert kept.find("ada/1", id_) is None


def test_what_is_old_is_forgotten_whether_anybody_asks_for_it_or_not() -> None:
    now = [0.0]
    kept = BriefStore[str](60.0, clock=lambda: now[0])
    kept.keep("ada", "secret")
    now[0] = 60.0
    kept.keep("ada", "another")
    assert len(kept._kept) == 1


def test_memory_is_bounded() -> None:
    kept = BriefStore[str](60.0)
    ids = [kept.keep("ada", "secret") for _ in range(1001)]
    assert kept.take("ada", ids[0]) is None
    assert kept.take("ada", ids[1]) == "secret"


def test_a_password_is_kept_for_a_minute_and_an_outcome_for_ten() -> None:
    assert (SHOWN_ONCE._seconds, OUTCOMES._seconds) == (60.0, 600.0)
