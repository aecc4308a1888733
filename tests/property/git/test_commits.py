"""Which of two commits contains the other: against plain reachability, whatever the committers' clocks said."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from deploykit.git.commits import History
from deploykit.git.objectformat import COMMIT

#: Per commit: its parents, as distances back in the list, and its date.
COMMITS = st.lists(
    st.tuples(st.sets(st.integers(1, 6), max_size=3), st.integers(-(10**6), 10**6)), min_size=2, max_size=14
)


def name(at: int) -> bytes:
    return at.to_bytes(20, "big")


@given(COMMITS, st.integers(0, 13), st.integers(0, 13))
@example([(set(), 10**6), ({1}, 0)], 1, 0)  # the older one comes from the future
def test_a_commit_contains_what_can_be_reached_from_it(
    commits: list[tuple[set[int], int]], first: int, second: int
) -> None:
    parents = {at: {at - back for back in told if back <= at} for at, (told, _) in enumerate(commits)}
    raw = {
        name(at): b"tree %s\n%sauthor a <a@b> 0 +0000\ncommitter a <a@b> %d +0000\n\nm\n"
        % (b"0" * 40, b"".join(b"parent %s\n" % name(p).hex().encode() for p in sorted(parents[at])), when)
        for at, (_, when) in enumerate(commits)
    }
    history = History(lambda oid: (COMMIT, raw[oid]) if oid in raw else None, 20)
    reached: dict[int, set[int]] = {}
    for at in range(len(commits)):
        reached[at] = {at}.union(*(reached[p] for p in parents[at]))
    new, old = first % len(commits), second % len(commits)
    assert history.contains(name(new), name(old)) == (old in reached[new])
