"""What we ask for, and what we say we have."""

from __future__ import annotations

from deploykit.mirror.negotiation import MAX_HAVES, haves, wants
from deploykit.mirror.refplan import plan_refs
from deploykit.names import ZERO_ID, ObjectId, RefName


def oid(n: int) -> ObjectId:
    return ObjectId(f"{n:040x}")


def test_only_what_is_not_held_is_wanted_and_each_once() -> None:
    origin = {RefName(f"refs/heads/{n}"): oid(n % 3 + 1) for n in range(9)}
    plan = plan_refs({}, origin)
    assert wants(plan, lambda o: o == oid(2)) == (oid(1), oid(3))


def test_the_old_tips_of_what_changes_are_offered_first() -> None:
    held = {RefName(f"refs/heads/{n}"): oid(n + 1) for n in range(1000)}
    origin = {**held, RefName("refs/heads/900"): oid(5000)}
    offered = haves(plan_refs(held, origin), held, first=(oid(77),))
    assert offered[:2] == (oid(77), oid(901))


def test_history_is_not_walked_and_tips_are_capped() -> None:
    held = {RefName(f"refs/heads/{n}"): oid(n + 1) for n in range(5000)}
    offered = haves(plan_refs(held, {**held, RefName("refs/heads/new"): oid(9999)}), held)
    assert len(offered) == MAX_HAVES
    assert len(set(offered)) == MAX_HAVES


def test_no_object_is_never_offered() -> None:
    plan = plan_refs({}, {RefName("refs/heads/new"): oid(1)})
    assert haves(plan, {}, first=(ZERO_ID,)) == ()
