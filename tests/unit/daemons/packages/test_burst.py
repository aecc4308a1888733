"""When announcements are looked at and sources are read: tables of times, and simulated floods."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.daemons.packages.burst import RefreshSchedule, SettledAnnouncement
from deploykit.daemons.packages.ports import ReadOutcome, SourceRead
from deploykit.settings.packages import PackageSourceSettings, PackagesSettings

READ = SourceRead(outcome="read")
FAILED = SourceRead(outcome="failed", detail="no route")
LOCKED = SourceRead(outcome="locked", detail="held by 7")
MISSING = SourceRead(outcome="missing", detail="no such file")
SETTINGS = PackagesSettings(
    sources={name: PackageSourceSettings(file=Path(f"/{name}.sources")) for name in ("a", "b")},
    gather=2.0,
    retry=30.0,
    attempts=3,
    lock_timeout=60.0,
)


def schedule(**changes: Any) -> RefreshSchedule[Any]:
    return RefreshSchedule(attrs.evolve(SETTINGS, **changes))


def settled(made: RefreshSchedule[Any]) -> dict[str, dict[str, SourceRead]]:
    return {each.item: dict(each.ends) for each in made.take_settled()}


# -- the window --------------------------------------------------------------------------------------------------------


def test_what_comes_within_a_window_is_taken_together_and_the_window_does_not_grow() -> None:
    made = schedule()
    assert made.next_due() == float("inf")
    assert made.take_gathered(0.0) == []
    for at in (10.0, 11.0, 11.9):
        made.arrived(f"at {at}", at)
    assert made.next_due() == 12.0
    assert made.take_gathered(11.99) == []
    assert made.take_gathered(12.0) == ["at 10.0", "at 11.0", "at 11.9"]
    assert made.take_gathered(12.0) == []
    made.arrived("next", 12.5)
    assert made.next_due() == 14.5


def test_a_window_that_was_opened_during_a_read_ends_after_it() -> None:
    made = schedule()
    made.wanted("one", ["a"], 0.0)
    assert made.begin(0.0) == "a"
    made.arrived("two", 0.5)
    made.ended(READ, 9.0, 0.0)
    assert made.take_gathered(10.9) == []
    assert made.take_gathered(11.0) == ["two"]


def test_a_window_that_was_open_before_a_read_is_not_put_off() -> None:
    made = schedule()
    made.arrived("two", 0.0)
    made.wanted("one", ["a"], 1.0)
    assert made.begin(1.0) == "a"
    made.ended(FAILED, 1.5, 0.0)
    assert made.take_gathered(2.0) == ["two"]


def test_what_could_not_be_looked_at_keeps_its_place_and_waits() -> None:
    made = schedule()
    made.arrived("one", 0.0)
    taken = made.take_gathered(2.0)
    made.arrived("two", 2.1)
    made.put_back(taken, 2.2, 5.0)
    assert made.next_due() == 7.2
    assert made.take_gathered(7.2) == ["one", "two"]


# -- reads -------------------------------------------------------------------------------------------------------------


def test_a_source_is_read_once_for_all_that_wait_and_again_for_who_comes_later() -> None:
    made = schedule()
    for item in ("one", "two", "three"):
        made.wanted(item, ["a"], 0.0)
    assert made.begin(0.0) == "a"
    made.ended(READ, 1.0, 0.0)
    assert settled(made) == {"one": {"a": READ}, "two": {"a": READ}, "three": {"a": READ}}
    assert made.begin(1.0) is None
    made.wanted("four", ["a"], 1.5)
    assert made.begin(1.5) == "a"
    made.ended(READ, 2.0, 0.0)
    assert settled(made) == {"four": {"a": READ}}
    assert settled(made) == {}


def test_an_announcement_waits_for_all_its_sources_whatever_becomes_of_each() -> None:
    made = schedule(attempts=1)
    made.wanted("both", ["a", "b"], 0.0)
    assert {made.begin(0.0)} <= {"a", "b"}
    made.ended(READ, 0.1, 0.0)
    assert settled(made) == {}
    assert made.begin(0.1) is not None
    made.ended(FAILED, 0.2, 0.0)
    ((item, ends),) = settled(made).items()
    assert (item, sorted(read.outcome for read in ends.values())) == ("both", ["failed", "read"])


@pytest.mark.parametrize(("chance", "pauses"), [(0.0, [6.0, 12.0]), (0.5, [18.0, 36.0]), (1.0, [30.0, 60.0])])
def test_a_failed_source_is_tried_again_after_growing_pauses_spread_by_chance(
    chance: float, pauses: list[float]
) -> None:
    made, now = schedule(), 0.0
    made.wanted("one", ["a"], now)
    for pause in pauses:
        assert made.begin(now) == "a"
        made.ended(FAILED, now, chance)
        assert settled(made) == {}
        assert made.next_due() == pytest.approx(now + pause)
        assert made.begin(now + pause - 0.01) is None
        now += pause + 0.01
    assert made.begin(now) == "a"
    made.ended(FAILED, now, chance)
    assert settled(made)["one"]["a"] == SourceRead(outcome="failed", detail="tried 3 times: no route")
    assert made.next_due() == float("inf")


def test_who_joins_a_source_that_fails_shares_its_tries_and_the_next_begins_anew() -> None:
    made = schedule(attempts=2)
    made.wanted("one", ["a"], 0.0)
    assert made.begin(0.0) == "a"
    made.ended(FAILED, 0.0, 1.0)
    made.wanted("two", ["a"], 5.0)
    assert made.begin(5.0) is None, "a flood does not hurry a source that fails"
    assert made.begin(30.0) == "a"
    made.ended(FAILED, 31.0, 1.0)
    assert settled(made).keys() == {"one", "two"}
    made.wanted("three", ["a"], 40.0)
    assert made.begin(40.0) == "a"
    made.ended(FAILED, 41.0, 1.0)
    assert settled(made) == {}, "it has its own tries"
    assert made.begin(71.0) == "a"
    made.ended(READ, 72.0, 1.0)
    assert settled(made) == {"three": {"a": READ}}


def test_a_lock_is_waited_for_and_is_no_failure() -> None:
    made, now, polls = schedule(attempts=1), 0.0, 0
    made.wanted("one", ["a"], now)
    while now < 50.0:
        assert made.begin(now) == "a"
        made.ended(LOCKED, now, 0.5)
        assert now + 0.5 <= made.next_due() <= now + 8.0
        now, polls = made.next_due(), polls + 1
    assert polls < 20
    assert made.begin(now) == "a"
    made.ended(READ, now, 0.5)
    assert settled(made) == {"one": {"a": READ}}


def test_a_lock_that_stays_is_given_up_at_its_time() -> None:
    made, now = schedule(), 5.0
    made.wanted("one", ["a"], now)
    while not (done := settled(made)):
        assert made.begin(now) == "a"
        made.ended(LOCKED, now, 1.0)
        now = min(made.next_due(), 999.0)
    assert done["one"]["a"].detail == "waited 60 s for the lock: held by 7"


def test_no_patience_with_a_lock_and_none_with_a_source_that_is_missing() -> None:
    made = schedule(lock_timeout=0.0)
    made.wanted("one", ["a"], 0.0)
    made.begin(0.0)
    made.ended(LOCKED, 0.1, 0.5)
    assert settled(made)["one"]["a"].outcome == "locked"
    made.wanted("two", ["a"], 1.0)
    made.begin(1.0)
    made.ended(MISSING, 1.1, 0.5)
    assert settled(made) == {"two": {"a": MISSING}}


def test_one_read_at_a_time() -> None:
    made = schedule()
    with pytest.raises(RuntimeError, match="nothing is being read"):
        made.ended(READ, 0.0, 0.0)
    made.wanted("one", ["a", "b"], 0.0)
    assert made.begin(0.0) is not None
    with pytest.raises(RuntimeError, match="is being read"):
        made.begin(0.0)


# -- simulated ---------------------------------------------------------------------------------------------------------


@attrs.frozen
class Simulated:
    """What a simulation saw: each read (source, begun, ended, outcome), and when each announcement was settled."""

    reads: list[tuple[str, float, float, ReadOutcome]]
    over: dict[int, tuple[float, SettledAnnouncement[int]]]


def simulate(
    made: RefreshSchedule[int],
    arrivals: list[tuple[float, tuple[str, ...]]],
    read: Callable[[], tuple[float, SourceRead]],
    chance: float,
) -> Simulated:
    """Drive a schedule as the refresher does, by a clock that jumps to whatever is next."""
    waiting = sorted(enumerate(arrivals), key=lambda each: each[1][0])
    found, now = Simulated([], {}), 0.0

    def arrive(until: float) -> None:
        while waiting and waiting[0][1][0] <= until:
            number, (at, _) = waiting.pop(0)
            made.arrived(number, at)

    while True:
        arrive(now)
        due = min(made.next_due(), waiting[0][1][0] if waiting else float("inf"))
        if due == float("inf"):
            return found
        now = max(now, due)
        arrive(now)
        for number in made.take_gathered(now):
            made.wanted(number, arrivals[number][1], now)
        if (source := made.begin(now)) is not None:
            begun, (seconds, outcome) = now, read()
            now += seconds
            arrive(now)
            made.ended(outcome, now, chance)
            found.reads.append((source, begun, now, outcome.outcome))
        for each in made.take_settled():
            assert each.item not in found.over, "settled twice"
            found.over[each.item] = (now, each)


ARRIVALS = st.lists(
    st.tuples(st.floats(0, 100, width=16), st.sampled_from([("a",), ("b",), ("a", "b")])), min_size=1, max_size=30
)


@settings(max_examples=40)
@given(
    ARRIVALS,
    st.lists(st.tuples(st.floats(0, 20, width=16), st.sampled_from([READ, FAILED, LOCKED, MISSING])), min_size=1),
    st.floats(0, 1, width=16),
)
def test_whatever_happens_each_announcement_is_settled_once_by_a_read_that_began_after_it(
    arrivals: list[tuple[float, tuple[str, ...]]], reads: list[tuple[float, SourceRead]], chance: float
) -> None:
    left = list(reads)

    def read() -> tuple[float, SourceRead]:
        return left.pop() if left else (1.0, READ)

    found = simulate(schedule(), arrivals, read, chance)
    assert found.over.keys() == set(range(len(arrivals)))
    for number, (at, sources) in enumerate(arrivals):
        when, end = found.over[number]
        assert end.ends.keys() == set(sources)
        for source, outcome in end.ends.items():
            kind = outcome.outcome
            assert any(
                s == source and at <= begun and ended <= when and k == kind for s, begun, ended, k in found.reads
            )


@given(st.lists(st.floats(0, 100, width=16), min_size=1, max_size=60), st.floats(0, 10, width=16), st.floats(0.5, 5.0))
def test_a_flood_costs_one_read_per_gathering_and_reading_time(
    times: list[float], seconds: float, gather: float
) -> None:
    arrivals: list[tuple[float, tuple[str, ...]]] = [(at, ("a",)) for at in times]
    found = simulate(schedule(gather=gather), arrivals, lambda: (seconds, READ), 0.0)
    begins = [begun for _, begun, _, _ in found.reads]
    assert all(later - earlier >= gather + seconds - 0.01 for earlier, later in itertools.pairwise(begins))
    span = max(times) - min(times)
    assert len(begins) <= span / (gather + seconds) + 2


def test_a_hundred_messages_in_a_second_are_one_read() -> None:
    arrivals: list[tuple[float, tuple[str, ...]]] = [(number / 100, ("a", "b")) for number in range(100)]
    found = simulate(schedule(), arrivals, lambda: (7.0, READ), 0.0)
    assert [source for source, *_ in found.reads] in (["a", "b"], ["b", "a"])
    assert len(found.over) == 100
