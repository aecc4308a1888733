"""When which mirror is fetched: no clock, no threads, no chance that a test does not choose."""

from __future__ import annotations

from deploykit.mirror.model import RefChange
from deploykit.mirror.schedule import FetchRequest, Schedule, refs_to_fetch, what_to_fetch
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
    plan.ask("site", FetchRequest(None, "first"), 1)
    started = plan.start(1)
    assert started is not None
    for n in range(10):
        plan.ask("site", FetchRequest(None, str(n)), 2)
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
    plan.ask("site", FetchRequest(None, "x"), 100)
    assert plan.wait(100) == 5
    plan.ask("site", FetchRequest(None, "y"), 103)
    assert plan.wait(103) == 2, "a second message does not put the first one off"


def pauses_of(plan: Schedule[str], now: float, rounds: int) -> list[float]:
    """Let every fetch fail at once, and tell the pauses between them."""
    pauses = []
    for _ in range(rounds):
        taken = plan.start(now)
        assert taken is not None
        plan.finished(taken[0], ok=False, now=now)
        pauses.append(plan.wait(now) or 0.0)
        now += pauses[-1]
    return pauses


def test_a_mirror_whose_fetch_fails_rests_for_longer_each_time() -> None:
    plan = schedule(one="down", every=1000)
    assert pauses_of(plan, 1000, 8) == [2, 4, 8, 16, 32, 64, 100, 100]


def test_an_origin_two_of_whose_mirrors_fail_rests_with_all_of_them() -> None:
    plan = schedule(one="down", two="down", three="down", other="up", every=1e9)
    for name in ("one", "two"):
        plan.ask(name, FetchRequest(None, "x"), 0)
    plan.start(0)
    plan.start(0)
    plan.finished("one", ok=False, now=0)
    plan.ask("three", FetchRequest(None, "x"), 0)
    assert plan.start(0) == ("three", [FetchRequest(None, "x")]), "one repository gone says little of its origin"
    plan.finished("two", ok=False, now=0)
    plan.finished("three", ok=False, now=0)
    plan.ask("other", FetchRequest(None, "x"), 0)
    assert plan.start(0) == ("other", [FetchRequest(None, "x")])
    assert plan.start(0) is None
    taken = plan.start(4)
    assert taken is not None
    assert plan.start(4) is None, "one fetch at a time tries an origin that failed"
    plan.finished(taken[0], ok=True, now=4)
    assert plan.start(4) is not None, "and the others go on when it is back"


def test_one_repository_that_is_gone_costs_the_others_of_its_origin_nothing() -> None:
    plan = schedule(gone="o", fine="o", every=1e9)
    for now in range(0, 600, 10):
        plan.ask("gone", FetchRequest(None, "x"), now)
        while (taken := plan.start(now)) is not None:
            plan.finished(taken[0], ok=False, now=now)
        plan.ask("fine", FetchRequest(None, "x"), now)
        assert plan.start(now) == ("fine", [FetchRequest(None, "x")])
        plan.finished("fine", ok=True, now=now)


def test_a_fault_on_this_side_rests_no_origin() -> None:
    plan = schedule(one="o", two="o", three="o", every=1e9)
    for name in ("one", "two"):
        plan.ask(name, FetchRequest(None, "x"), 0)
        plan.start(0)
        plan.finished(name, ok=False, here=True, now=0)
    plan.ask("three", FetchRequest(None, "x"), 0)
    assert plan.start(0) is not None


def test_who_is_asked_for_rests_no_longer_than_a_few_seconds() -> None:
    plan = schedule(one="o", every=1e9)
    plan.ask("one", FetchRequest(None, "x"), 0)
    pauses_of(plan, 0, 1)
    now = sum(pauses_of(plan, 2, 8)) + 2
    plan.start(now)
    plan.finished("one", ok=False, now=now)
    assert plan.wait(now) == 100
    plan.ask("one", FetchRequest(None, "x"), now + 1)
    assert plan.wait(now + 1) == 4


def test_an_origin_has_a_few_fetches_at_a_time_and_no_more() -> None:
    plan = schedule(other="up")
    for n in range(10):
        plan.add(f"m{n}", origin="stalled", every=300, spread=0, now=0, at_once=False)
        plan.ask(f"m{n}", FetchRequest(None, "x"), 0)
    started = [plan.start(0) for _ in range(5)]
    assert [taken is not None for taken in started] == [True] * 4 + [False]
    plan.ask("other", FetchRequest(None, "x"), 1)
    assert plan.start(1) == ("other", [FetchRequest(None, "x")])


def test_a_mirror_that_is_removed_and_added_while_it_is_fetched_is_not_fetched_twice_at_once() -> None:
    plan = schedule(site="o")
    plan.ask("site", FetchRequest(None, "x"), 0)
    plan.start(0)
    plan.remove("site")
    plan.add("site", origin="o", every=300, spread=0, now=0)
    assert plan.start(1) is None
    plan.finished("site", ok=True, now=2)
    assert plan.start(2) is not None


def test_an_origin_that_is_back_is_asked_at_once_again() -> None:
    plan = schedule(one="o", two="o")
    plan.ask("one", FetchRequest(None, "x"), 0)
    plan.start(0)
    plan.finished("one", ok=False, now=0)
    later = plan.wait(0) or 0
    assert plan.start(later) is not None
    plan.finished("one", ok=True, now=later)
    plan.ask("two", FetchRequest(None, "x"), later)
    assert plan.start(later) == ("two", [FetchRequest(None, "x")])


def test_two_fetches_of_one_mirror_never_run_together() -> None:
    plan = schedule(site="o")
    plan.ask("site", FetchRequest(None, "x"), 0)
    assert plan.start(0) is not None
    plan.ask("site", FetchRequest(None, "y"), 0)
    assert plan.start(10_000) is None
    assert plan.wait(10_000) is None


def test_what_nobody_will_answer_is_told_when_a_mirror_is_removed() -> None:
    plan = schedule(site="o")
    plan.ask("site", FetchRequest(None, "x"), 0)
    plan.start(0)
    plan.ask("site", FetchRequest(None, "y"), 0)
    assert plan.remove("site") == [FetchRequest(None, "y")]
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


def test_a_mirror_that_is_fetched_on_request_alone_is_left_alone_until_then() -> None:
    plan = schedule(site="o", every=float("inf"))
    plan.all_soon(5)
    assert plan.start(1e9) is None
    assert plan.wait(1e9) is None
    plan.ask("site", FetchRequest(None, "x"), 1e9)
    assert plan.start(1e9) is not None
    plan.finished("site", ok=False, now=1e9)
    assert plan.wait(1e9) == 2, "a fetch that failed is tried again"
    assert plan.start(1e9 + 2) is not None
    plan.finished("site", ok=True, now=1e9 + 2)
    assert plan.wait(1e9 + 2) is None


def test_what_nobody_asked_for_does_not_move_in_such_a_mirror() -> None:
    first, again, tag = RefChange(MAIN, A, B), RefChange(MAIN, A, C), RefChange(TAG, ZERO_ID, A)
    assert refs_to_fetch([first, tag, again]) == (again, tag)
    assert refs_to_fetch([first, None]) is None
    assert refs_to_fetch([]) is None
    many = [RefChange(RefName(f"refs/heads/{number}"), A, B) for number in range(21)]
    assert refs_to_fetch(many) is None
    assert len(refs_to_fetch(many[1:]) or ()) == 20
