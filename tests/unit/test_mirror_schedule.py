"""When which mirror is fetched: no clock, no threads, no chance that a test does not choose."""

from __future__ import annotations

from deploykit.mirror.schedule import Asked, Schedule, what_to_fetch
from deploykit.mirror.values import RefChange
from deploykit.names import ZERO_ID, ObjectId, RefName

A, B, C = (ObjectId(c * 40) for c in "abc")
MAIN, TAG = RefName("refs/heads/main"), RefName("refs/tags/v1")


def schedule(*, every: float = 300, longest: float = 100.0, **names: str) -> Schedule[str]:
    made: Schedule[str] = Schedule(chance=lambda: 0.5, longest_pause=longest)
    for name, origin in names.items():
        made.add(name, origin=origin, every=every, spread=0, now=0, at_once=False)
    return made


def test_ten_requests_while_a_fetch_runs_are_one_more_fetch() -> None:
    plan = schedule(site="o")
    plan.ask("site", Asked(None, "first"), 1)
    started = plan.start(1)
    assert started is not None
    for n in range(10):
        plan.ask("site", Asked(None, str(n)), 2)
    assert plan.start(3) is None
    plan.finished("site", ok=True, now=4)
    again = plan.start(4)
    assert again is not None
    assert [asked.token for asked in again[1]] == [str(n) for n in range(10)]
    plan.finished("site", ok=True, now=5)
    assert plan.start(5) is None


def test_a_mirror_is_compared_with_its_origin_now_and_then() -> None:
    plan = schedule(site="o")
    assert plan.start(299) is None
    assert plan.start(300) == ("site", [])
    plan.finished("site", ok=True, now=301)
    assert plan.wait(301) == 299


def test_a_message_is_spread_by_chance() -> None:
    plan: Schedule[str] = Schedule(chance=lambda: 0.25)
    plan.add("site", origin="o", every=300, spread=20, now=0, at_once=False)
    plan.ask("site", Asked(None, "x"), 100)
    assert plan.wait(100) == 5
    plan.ask("site", Asked(None, "y"), 103)
    assert plan.wait(103) == 2, "a second message does not put the first one off"


def test_an_origin_that_fails_is_left_alone_with_all_its_mirrors_for_longer_each_time() -> None:
    plan = schedule(one="down", two="down", other="up", every=1e9)
    now = 0.0
    pauses = []
    for _ in range(8):
        plan.ask("one", Asked(None, "x"), now)
        assert plan.start(now) is not None
        plan.finished("one", ok=False, now=now)
        plan.ask("two", Asked(None, "x"), now)
        assert plan.start(now) is None, "another mirror of the same origin waits too"
        pause = plan.wait(now)
        assert pause is not None
        pauses.append(pause)
        now += pause
        taken = plan.start(now)
        assert taken is not None
        plan.finished(taken[0], ok=False, now=now)
        now += plan.wait(now) or 0
    assert pauses == sorted(pauses)
    assert pauses[0] == 2
    assert pauses[-1] == 100
    plan.ask("other", Asked(None, "x"), 0)
    assert plan.start(0) == ("other", [Asked(None, "x")])


def test_an_origin_that_is_back_is_asked_at_once_again() -> None:
    plan = schedule(one="o", two="o")
    plan.ask("one", Asked(None, "x"), 0)
    plan.start(0)
    plan.finished("one", ok=False, now=0)
    later = plan.wait(0) or 0
    assert plan.start(later) is not None
    plan.finished("one", ok=True, now=later)
    plan.ask("two", Asked(None, "x"), later)
    assert plan.start(later) == ("two", [Asked(None, "x")])


def test_two_fetches_of_one_mirror_never_run_together() -> None:
    plan = schedule(site="o")
    plan.ask("site", Asked(None, "x"), 0)
    assert plan.start(0) is not None
    plan.ask("site", Asked(None, "y"), 0)
    assert plan.start(10_000) is None
    assert plan.wait(10_000) is None


def test_what_nobody_will_answer_is_told_when_a_mirror_is_removed() -> None:
    plan = schedule(site="o")
    plan.ask("site", Asked(None, "x"), 0)
    assert plan.remove("site") == [Asked(None, "x")]
    plan.finished("site", ok=True, now=1)


def test_one_message_asks_for_one_ref() -> None:
    told = RefChange(MAIN, A, B)
    assert what_to_fetch([told], {MAIN: A}) == told


def test_a_message_that_came_twice_or_late_is_no_gap() -> None:
    told = RefChange(MAIN, A, B)
    assert what_to_fetch([told], {MAIN: B}) == told
    assert what_to_fetch([told, told], {MAIN: A}) == told


def test_messages_of_one_ref_in_a_row_ask_for_the_last() -> None:
    first, second = RefChange(MAIN, A, B), RefChange(MAIN, B, C)
    assert what_to_fetch([first, second], {MAIN: A}) == second


def test_a_missed_message_asks_for_everything() -> None:
    assert what_to_fetch([RefChange(MAIN, B, C)], {MAIN: A}) is None
    assert what_to_fetch([RefChange(MAIN, B, C)], {}) is None
    assert what_to_fetch([RefChange(MAIN, ZERO_ID, C)], {MAIN: A}) is None


def test_several_refs_ask_for_everything() -> None:
    assert what_to_fetch([RefChange(MAIN, A, B), RefChange(TAG, ZERO_ID, B)], {MAIN: A}) is None


def test_a_request_without_a_message_asks_for_everything() -> None:
    assert what_to_fetch([RefChange(MAIN, A, B), None], {MAIN: A}) is None


def test_a_created_and_a_deleted_ref_are_asked_for_alone() -> None:
    created, deleted = RefChange(TAG, ZERO_ID, A), RefChange(TAG, A, ZERO_ID)
    assert what_to_fetch([created], {MAIN: A}) == created
    assert what_to_fetch([deleted], {TAG: A}) == deleted
