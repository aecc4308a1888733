"""Which refs move, decided on paper."""

from __future__ import annotations

import pytest

from deploykit.mirror.model import RefChange
from deploykit.mirror.refplan import common_prefixes, plan_refs, read_advertised, ref_matcher
from deploykit.names import ZERO_ID, ZERO_ID_SHA256, ObjectId, RefName, parse_ref_name

A, B, C = (ObjectId(c * 40) for c in "abc")
HEADS = ("refs/heads/*", "refs/tags/*")


def refs(**named: ObjectId) -> dict[RefName, ObjectId]:
    return {RefName("refs/heads/" + name.replace("__", "/")): oid for name, oid in named.items()}


def test_deletions_come_before_what_needs_their_place() -> None:
    plan = plan_refs(refs(foo=A), refs(foo__bar=A))
    assert [c.kind for c in plan.changes] == ["deleted", "created"]
    assert plan.refused == ()


def test_nothing_to_do_is_an_empty_plan() -> None:
    assert plan_refs(refs(main=A), refs(main=A)).changes == ()


def test_a_plan_for_one_ref_says_nothing_of_others() -> None:
    plan = plan_refs(refs(main=A, other=A), {}, only=RefName("refs/heads/main"))
    assert plan.changes == (RefChange(RefName("refs/heads/main"), A, ZERO_ID),)


def test_the_zero_id_is_of_the_repositorys_hash() -> None:
    long = ObjectId("d" * 64)
    assert plan_refs({}, refs(main=long)).updates[0].old == ZERO_ID_SHA256
    assert plan_refs(refs(main=long), {}).deletes[0].new == ZERO_ID_SHA256


@pytest.mark.parametrize(("percent", "followed"), [(49.9, False), (50.0, True), (100.0, True), (0.0, False)])
def test_mass_deletion_is_refused_beyond_the_limit_and_the_rest_goes_on(percent: float, followed: bool) -> None:
    held = refs(a=A, b=A, c=A, d=A)
    plan = plan_refs(held, refs(a=B, b=A), max_delete_percent=percent)
    assert len(plan.deletes) == (2 if followed else 0)
    assert len(plan.refused) == (0 if followed else 2)
    assert [c.new for c in plan.updates] == [B]


def test_the_guard_does_not_mind_a_handful_of_refs() -> None:
    assert len(plan_refs(refs(a=A, b=A, c=A), {}, max_delete_percent=0).deletes) == 3


def test_a_told_deletion_is_not_a_mass_deletion() -> None:
    plan = plan_refs(refs(a=A, b=A, c=A, d=A), {}, only=RefName("refs/heads/a"), max_delete_percent=0)
    assert len(plan.deletes) == 1


def test_a_creation_in_the_way_of_a_ref_that_stays_is_refused() -> None:
    held = refs(foo=A, bar__x=A, c=A, d=A)
    plan = plan_refs(held, refs(foo__y=B, bar=B), max_delete_percent=10)
    assert plan.updates == ()
    assert {r.ref for r in plan.refused if "stand beside" in r.reason} == {"refs/heads/foo/y", "refs/heads/bar"}


def test_an_unreadable_id_does_not_delete_the_ref_it_is_told_of() -> None:
    origin, bad = read_advertised([("refs/heads/main", "0" * 40)], HEADS)
    plan = plan_refs(refs(main=A), origin, refused=bad)
    assert plan.changes == ()
    assert [r.ref for r in plan.refused] == ["refs/heads/main"]


@pytest.mark.parametrize(
    ("patterns", "prefixes"),
    [
        (HEADS, ("refs/heads/", "refs/tags/")),
        (("refs/heads/main",), ("refs/heads/main",)),
        (("refs/tags/v[0-9]*", "refs/tags/v1"), ("refs/tags/v",)),
        (("refs/*", "refs/heads/*"), ("refs/",)),
        ((), ()),
    ],
)
def test_a_server_is_asked_for_no_more_than_the_patterns_need(
    patterns: tuple[str, ...], prefixes: tuple[str, ...]
) -> None:
    assert common_prefixes(patterns) == prefixes


@pytest.mark.parametrize(
    ("patterns", "name", "matches"),
    [
        (HEADS, "refs/heads/a/b", True),
        (HEADS, "refs/pull/1/head", False),
        (("refs/heads/main",), "refs/heads/main2", False),
        (("refs/tags/v[0-9]*",), "refs/tags/v1.2", True),
        (("refs/tags/v[0-9]*",), "refs/tags/vx", False),
        ((), "refs/heads/main", False),
    ],
)
def test_patterns_match_whole_names(patterns: tuple[str, ...], name: str, matches: bool) -> None:
    assert bool(ref_matcher(patterns).match(name)) is matches


def test_a_pattern_does_not_match_past_a_line_end() -> None:
    assert not ref_matcher(("refs/heads/main",)).match("refs/heads/main\n")


@pytest.mark.parametrize("cut", [77, 80, 200, 1024])
def test_what_is_shown_of_a_name_that_is_none_is_never_taken_for_a_name(cut: int) -> None:
    """An over-long name begins like one that is held: that one is followed, the other refused without a name."""
    long = "refs/heads/" + "/".join(["b" * 200] * 7)
    begins = parse_ref_name(long[:cut].rstrip("/"))
    origin, bad = read_advertised([(long, A)], ("refs/*",))
    assert [(r.ref, r.old, r.new) for r in bad] == [(None, None, None)]
    assert bad[0].name.isprintable()
    assert len(bad[0].name) < 300
    plan = plan_refs({begins: A}, origin, refused=bad)
    assert [change.ref for change in plan.deletes] == [begins]
