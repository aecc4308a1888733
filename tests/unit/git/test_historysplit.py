"""Two histories taken apart: right whatever committers' clocks say, bounded, and cut off where asked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.git.commits import History
from deploykit.git.historysplit import split_history
from deploykit.git.objectformat import COMMIT, Found

TREE = "0" * 40


class Made:
    """Commits in memory."""

    def __init__(self) -> None:
        self.found: dict[bytes, Found] = {}
        self.parents: dict[bytes, tuple[bytes, ...]] = {}
        self.ticks = 0

    def commit(self, when: int, *parents: bytes) -> bytes:
        lines = [f"tree {TREE}", *(f"parent {p.hex()}" for p in parents), f"committer A <a@example.net> {when} +0000"]
        raw = ("\n".join(lines) + f"\n\n{len(self.found)}\n").encode()
        oid = hashlib.sha1(raw, usedforsecurity=False).digest()
        self.found[oid] = (COMMIT, raw)
        self.parents[oid] = parents
        return oid

    def line(self, when: int, count: int, *start: bytes) -> list[bytes]:
        made: list[bytes] = []
        for n in range(count):
            made.append(self.commit(when + n, *(made[-1:] or start)))
        return made

    def ancestors(self, oid: bytes) -> set[bytes]:
        seen: set[bytes] = set()
        todo = [oid]
        while todo:
            at = todo.pop()
            if at not in seen:
                seen.add(at)
                todo += self.parents[at]
        return seen

    def history(self, stop_after: int = 10**9) -> History:
        def tick() -> None:
            self.ticks += 1
            if self.ticks > stop_after:
                raise TimeoutError

        return History(self.found.get, 20, tick)


def test_a_fork_gives_both_sides_newest_first_and_the_base() -> None:
    made = Made()
    trunk = made.line(0, 5)
    ours, theirs = made.line(100, 3, trunk[-1]), made.line(50, 2, trunk[-1])
    split = split_history(made.history(), ours[-1], theirs[-1], most=1000)
    assert split.only_new == tuple(reversed(ours))
    assert split.only_old == tuple(reversed(theirs))
    assert split.bases == (trunk[-1],)
    assert split.complete


def test_of_two_commits_in_one_line_the_older_is_the_base() -> None:
    made = Made()
    line = made.line(0, 10)
    forward = split_history(made.history(), line[-1], line[2], most=1000)
    assert forward.only_new == tuple(reversed(line[3:]))
    assert forward.only_old == ()
    assert forward.bases == (line[2],)
    back = split_history(made.history(), line[2], line[-1], most=1000)
    assert (back.only_new, back.only_old, back.bases) == ((), forward.only_new, (line[2],))
    same = split_history(made.history(), line[2], line[2], most=1000)
    assert (same.only_new, same.only_old, same.bases, same.complete) == ((), (), (line[2],), True)


def test_histories_with_nothing_in_common_have_no_base() -> None:
    made = Made()
    ours, theirs = made.line(0, 3), made.line(50, 3)
    split = split_history(made.history(), ours[-1], theirs[-1], most=1000)
    assert (set(split.only_new), set(split.only_old), split.bases) == (set(ours), set(theirs), ())
    assert split.complete


def test_two_crossed_merges_have_two_bases() -> None:
    made = Made()
    (root,) = made.line(0, 1)
    left, right = made.commit(10, root), made.commit(11, root)
    ours, theirs = made.commit(20, left, right), made.commit(21, right, left)
    split = split_history(made.history(), ours, theirs, most=1000)
    assert set(split.bases) == {left, right}


def test_the_walk_does_not_read_the_common_past() -> None:
    made = Made()
    trunk = made.line(0, 5000)
    ours = made.line(10_000, 3, trunk[-1])
    split = split_history(made.history(), ours[-1], trunk[-2], most=100_000)
    assert len(split.only_new) == 4
    assert made.ticks < 1000


@pytest.mark.parametrize("bound", ["commits", "time"])
def test_a_walk_that_is_cut_off_returns_what_it_has_and_says_so(bound: str) -> None:
    made = Made()
    line = made.line(0, 2000)
    history = made.history(stop_after=300 if bound == "time" else 10**9)
    split = split_history(history, line[-1], line[0], most=300 if bound == "commits" else 10**9)
    assert not split.complete
    assert 290 <= len(split.only_new) <= 301
    assert split.only_new[0] == line[-1]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Sequence[tuple[int, Sequence[int]]], int, int]:
    """Draw a history with wild dates: (time, parents by number) of each commit, and two commits of it."""
    count = draw(st.integers(2, 25))
    rows: list[tuple[int, Sequence[int]]] = []
    for n in range(count):
        parents = draw(st.lists(st.integers(0, n - 1), max_size=3, unique=True)) if n else []
        rows.append((draw(st.integers(0, 100)), parents))
    return rows, draw(st.integers(0, count - 1)), draw(st.integers(0, count - 1))


@given(graphs())
@settings(max_examples=300, deadline=None)
def test_any_history_is_taken_apart_as_sets_of_ancestors_say(
    drawn: tuple[Sequence[tuple[int, Sequence[int]]], int, int],
) -> None:
    rows, new_at, old_at = drawn
    made = Made()
    oids: list[bytes] = []
    for when, parents in rows:
        oids.append(made.commit(when, *(oids[p] for p in parents)))
    new, old = oids[new_at], oids[old_at]
    split = split_history(made.history(), new, old, most=10_000)
    by_new, by_old = made.ancestors(new), made.ancestors(old)
    assert set(split.only_new) == by_new - by_old
    assert set(split.only_old) == by_old - by_new
    assert set(split.bases) == _best(made.parents, by_new & by_old)
    assert split.complete


def _best(parents: Mapping[bytes, Sequence[bytes]], common: set[bytes]) -> set[bytes]:
    below: set[bytes] = set()
    todo = [p for oid in common for p in parents[oid]]
    while todo:
        at = todo.pop()
        if at not in below:
            below.add(at)
            todo += parents[at]
    return common - below
