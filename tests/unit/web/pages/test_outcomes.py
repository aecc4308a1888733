"""What came of an action is shown to whoever did it, for a while."""

from __future__ import annotations

from deploykit.web.actions.shown import ActionOutcome
from deploykit.web.pages.outcomes import KeptOutcomes

DONE = ActionOutcome(state="done", site="shop", detail="web-1 holds the lock.")


def test_it_can_be_seen_again_but_not_by_others_and_not_for_ever() -> None:
    now = [0.0]
    kept = KeptOutcomes(clock=lambda: now[0])
    id_ = kept.keep("ada", DONE)
    assert kept.find("ada", id_) == DONE
    assert kept.find("ada", id_) == DONE  # the page was loaded again
    assert kept.find("bob", id_) is None
    assert kept.find("ada", id_ + "x") is None
    now[0] = 601
    assert kept.find("ada", id_) is None


def test_memory_is_bounded() -> None:
    kept = KeptOutcomes()
    ids = [kept.keep("ada", DONE) for _ in range(1001)]
    assert kept.find("ada", ids[0]) is None
    assert kept.find("ada", ids[1]) == DONE
