"""What lies inside a mandate: one rollout, its release, its nodes, its time, and each node's own way back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import attrs
import pytest

from deploykit.messages import DeployPhase, SiteRelease
from deploykit.names import NodeName, ObjectId, RefName, SiteName
from deploykit.trust.mandate import FORWARD, inside
from tests.support.asked import NOW, SECOND, SKEW, WEB1, WEB2
from tests.support.mandates import HOUR, NEW, OLD, OLDER, WEB3, command, mandate


def why_not(
    changes: dict[str, Any] | None = None,
    *,
    node: NodeName = WEB1,
    previous: SiteRelease | None = OLDER,
    live: SiteRelease | None = OLD,
    skew: timedelta = SKEW,
    **approved: Any,
) -> str:
    return inside(mandate(**approved), command(**changes or {}), node, NOW, previous, live, skew=skew)


@pytest.mark.parametrize("phase", sorted(FORWARD))
def test_the_phases_of_the_mandate_are_inside_and_no_other(phase: DeployPhase) -> None:
    assert why_not({"phase": phase}) == ""
    assert why_not({"phase": phase}, phases=(phase,)) == ""
    others = tuple(FORWARD - {phase})
    assert f"the command is to {phase}" in why_not({"phase": phase}, phases=others)
    assert "only going back" in why_not({"phase": phase}, phases=(), ref=None, commit=None)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"site": SiteName("bank")}, "for site shop, the command for bank"),
        ({"rollout": "r2"}, "for rollout r1, the command for r2"),
        ({"rollout": None}, "the command for none"),
        ({"mandate": "e" * 64}, "names another mandate"),
        ({"mandate": None}, "names another mandate"),
        ({"commit": ObjectId("c" * 40)}, "the command for v1 cccc"),
        ({"ref": RefName("refs/tags/v2")}, "the command for v2 aaaa"),
        ({"audience": (WEB1, WEB3)}, "does not name node web3 of the command's audience"),
        ({"without_build": True}, "does not allow to leave out builds"),
        ({"override_lock": "urgent"}, "does not allow to override a lock"),
        ({"expires": NOW + HOUR + SECOND}, "after the mandate ends"),
    ],
)
def test_another_site_rollout_release_node_or_switch_is_outside(changes: dict[str, Any], says: str) -> None:
    assert says in why_not(changes)


def test_a_node_that_the_mandate_does_not_name_obeys_nothing_of_it() -> None:
    assert "does not name node web3" in why_not({"audience": (WEB1,)}, node=WEB3)
    assert why_not({"audience": (WEB2,)}, node=WEB2) == ""


def test_ten_thousand_nodes_may_be_named() -> None:
    many = tuple(NodeName(f"n{at}") for at in range(10_000))
    assert why_not({"audience": many[-3:]}, node=many[-1], nodes=many) == ""
    assert "n10000" in why_not({"audience": (*many[-3:], NodeName("n10000"))}, node=many[-1], nodes=many)


@pytest.mark.parametrize(
    ("approved", "says"),
    [
        ({"not_before": NOW + SKEW}, ""),
        ({"not_before": NOW + SKEW + SECOND}, "the mandate begins at 2026-03-01T12:00:31Z"),
        ({"not_after": NOW - SKEW}, ""),
        ({"not_after": NOW - SKEW - SECOND}, "the mandate ended at 2026-03-01T11:59:29Z"),
    ],
)
def test_both_edges_of_its_time_count_as_inside_with_the_skew_of_clocks(approved: dict[str, Any], says: str) -> None:
    expires = {"expires": min(NOW + SECOND, approved.get("not_after", NOW))}
    assert says == why_not(expires, **approved) if not says else says in why_not(expires, **approved)


def test_a_command_may_not_outlive_its_mandate_by_a_second() -> None:
    assert why_not({"expires": NOW + HOUR}) == ""
    assert "after the mandate ends at 2026-03-01T13:00:00Z" in why_not({"expires": NOW + HOUR + SECOND})


def test_what_was_approved_may_be_left_away_and_not_replaced() -> None:
    """Who approves that builds are left out, or that a lock is overridden, approves the careful command too."""
    for phase in sorted(FORWARD):
        assert why_not({"phase": phase}, without_build=True, override_lock="urgent") == ""
        assert why_not({"phase": phase, "without_build": True}, without_build=True) == ""
    assert why_not({"override_lock": "urgent"}, override_lock="urgent") == ""
    assert "for another reason" in why_not({"override_lock": "I like to"}, override_lock="urgent")


def test_a_discard_needs_no_mandate() -> None:
    assert why_not({"phase": "discard"}, nodes=(WEB2,), not_after=NOW - HOUR, phases=()) == ""


# -- going back ------------------------------------------------------------------------------------------------------


def back_to(release: SiteRelease) -> dict[str, Any]:
    return {"phase": "rollback", "ref": release.ref, "commit": release.commit}


def test_a_node_goes_back_to_its_own_previous_release_or_stays_there() -> None:
    assert why_not(back_to(OLD), live=NEW, previous=OLD) == ""
    assert why_not(back_to(OLD), live=OLD, previous=OLDER) == "", "sent again after it was obeyed"
    assert why_not(back_to(OLD), live=None, previous=OLD) == ""
    assert "the previous release (v0 0000" in why_not(back_to(OLDER), live=NEW, previous=OLD)
    assert "the previous release (none)" in why_not(back_to(OLD), live=NEW, previous=None)


def test_the_way_back_ends_where_the_rollout_began() -> None:
    """Else a coordinator could walk a node back, release by release, under the mandate for one new release."""
    assert "live is v0" in why_not(back_to(OLDER), live=OLD, previous=OLDER)


def test_a_mandate_for_the_way_back_alone_names_no_release() -> None:
    only_back: dict[str, Any] = {"ref": None, "commit": None, "phases": ()}
    assert why_not(back_to(OLD), live=NEW, previous=OLD, **only_back) == ""
    assert "the previous release (v0" in why_not(back_to(OLDER), live=NEW, previous=OLD, **only_back)


def test_the_new_release_is_not_the_way_back_of_a_node_that_was_never_there() -> None:
    assert why_not({"phase": "rollback"}, live=OLD, previous=OLDER) != ""


def test_without_leave_to_go_back_nothing_is_inside_that_does() -> None:
    for live, previous in ((NEW, OLD), (OLD, OLDER)):
        assert "does not allow to go back" in why_not(back_to(OLD), live=live, previous=previous, allow_rollback=False)


def test_a_release_of_another_name_with_the_same_commit_is_another() -> None:
    other = attrs.evolve(OLD, ref=RefName("refs/heads/main"))
    assert why_not(back_to(other), live=NEW, previous=OLD) != ""
