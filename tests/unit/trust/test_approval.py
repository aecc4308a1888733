"""Who approved a mandate: people who may, each counted once, by keys that show them where a site asks for that."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest

from deploykit.errors import PolicyRefused
from deploykit.names import ObjectId, RepoName, SiteName
from deploykit.settings import GrantSettings, NodeSiteSettings
from deploykit.trust.approval import people
from deploykit.trust.mandate import Requirement
from deploykit.trust.policy import Policy
from deploykit.trust.signature import Signer
from tests.support.asked import NOW, SECOND, SKEW
from tests.support.mandates import HOUR, mandate, person

APPROVE = ("rollout.approved",)
ANN = GrantSettings(principal="ann", types=APPROVE, sites=("shop",))
BOB = GrantSettings(principal="bob", types=APPROVE)
DAY = timedelta(days=1)


def judge(
    *signers: Signer,
    grants: tuple[GrantSettings, ...] = (ANN, BOB),
    signatures: int = 1,
    require: Literal["", "person"] = "",
    repos: dict[SiteName, tuple[RepoName, ...]] | None = None,
    **changes: Any,
) -> str:
    """Return why a mandate does not count; empty where it does."""
    policy = Policy(grants=grants, skew=SKEW, mandate_max=DAY, repos=repos or {})
    requirement = Requirement(require=require, signatures=signatures)
    try:
        policy.judge_mandate(mandate(*signers, **changes), requirement, NOW)
    except PolicyRefused as error:
        return str(error)
    return ""


def test_one_person_with_the_grant_is_enough_where_a_site_asks_for_no_more() -> None:
    assert judge(person("ann", present=False)) == ""
    assert "key SHA256:eve may not approve it" in judge(person("eve"))
    assert "may not approve it" in judge(person("ann"), site=SiteName("bank"))
    assert judge(person("bob"), site=SiteName("bank")) == ""
    assert "has that of 0" in judge(person("ann"), grants=(attrs.evolve(ANN, types=("deploy.requested",)),))


def test_the_site_says_what_it_asks_for() -> None:
    site = NodeSiteSettings(path=Path("/srv/x"), repo=RepoName("shop"), require="person", signatures=2)
    assert Requirement.of(site) == Requirement(require="person", signatures=2)
    assert str(Requirement.of(site)) == "2 different people with a key that shows presence"
    assert str(Requirement()) == "1 person"


# -- two people ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signers", "enough"),
    [
        ((person("ann"), person("bob")), True),
        ((person("bob"), person("ann")), True),
        ((person("ann"),), False),
        ((person("ann"), person("eve")), False),
        ((person("ann"), person("bob"), person("eve")), True),
        ((person("one", "ann"), person("two", "ann")), False),
        ((person("one", "ann", "bob"), person("two", "ann")), True),
        ((person("one", "ann"), person("two", "ann", "bob")), True),
        ((person("one", "ann", "bob"), person("two", "ann", "bob")), True),
        ((person("one", "ann", "bob"),), False),
        ((person("one", "*"), person("two", "ann")), True),
        ((person("one", "ann", "eve"), person("two", "ann", "zoe")), False),
        ((person("one", "ann"), person("two", "ann"), person("three", "ann"), person("four", "bob")), True),
    ],
)
def test_two_signatures_are_of_two_people(signers: tuple[Signer, ...], enough: bool) -> None:
    told = judge(*signers, signatures=2)
    assert (told == "") is enough, told
    if not enough:
        assert "needs the approval of 2 different people, and has that of" in told
        assert not re.search(r"(?<!SHA256:)\b(ann|bob|zoe)\b", told), "others read this: no principal is named"


def test_two_keys_of_one_person_are_named_as_the_reason() -> None:
    told = judge(person("one", "ann"), person("two", "ann"), signatures=2)
    assert "has that of 1: key SHA256:one counts; key SHA256:two counts; several keys of one principal" in told
    assert "deploykit approve r1" in told


def test_four_people_may_be_asked_for() -> None:
    grants = tuple(GrantSettings(principal=name, types=APPROVE) for name in "abcd")
    each = [person(name) for name in "abcd"]
    assert judge(*each, grants=grants, signatures=4) == ""
    assert judge(*each[:3], grants=grants, signatures=4) != ""


@pytest.mark.parametrize(
    ("names", "count"),
    [
        ([], 0),
        ([[]], 0),
        ([["a"], [], ["b"]], 2),
        ([["a", "b"], ["a", "c"], ["a"]], 3),
        ([["a", "b"], ["a", "b"], ["a", "b"]], 2),
        ([["a"], ["a", "b"], ["b", "c"], ["c"]], 3),
        ([["d", "c"], ["c", "b"], ["b", "a"], ["d", "c"]], 4),
    ],
)
def test_the_most_people_are_found(names: list[list[str]], count: int) -> None:
    assert people(names) == count
    assert people(names[::-1]) == count


# -- a person --------------------------------------------------------------------------------------------------------


def test_where_a_person_is_asked_for_only_keys_that_show_presence_count() -> None:
    assert judge(person("ann"), require="person") == ""
    told = judge(person("ann", present=False), require="person")
    assert "key SHA256:ann shows no person's presence (ssh-ed25519)" in told
    assert "1 person with a key that shows presence" in told
    assert judge(person("ann"), person("bob"), require="person", signatures=2) == ""
    assert judge(person("ann"), person("bob", present=False), require="person", signatures=2) != ""
    assert judge(person("ann"), person("bob", present=False), require="person") == "", "one more does no harm"


# -- what a grant allows to approve ----------------------------------------------------------------------------------


def test_a_grant_for_some_phases_approves_no_other() -> None:
    some = attrs.evolve(BOB, phases=("prepare", "activate"))
    only: dict[str, Any] = {"phases": ("prepare", "activate"), "allow_rollback": False}
    assert judge(person("bob"), grants=(some,), **only) == ""
    assert judge(person("bob"), grants=(some,), **{**only, "allow_rollback": True}) != ""
    assert judge(person("bob"), grants=(some,), **{**only, "phases": ("deploy",)}) != ""
    back: dict[str, Any] = {"phases": (), "ref": None, "commit": None}
    assert judge(person("bob"), grants=(attrs.evolve(BOB, phases=("rollback",)),), **back) == ""


def test_a_grant_for_some_repositories_approves_no_other_site() -> None:
    some = attrs.evolve(BOB, repos=("shop-*",))
    assert judge(person("bob"), grants=(some,), repos={SiteName("shop"): (RepoName("shop-eu"),)}) == ""
    assert judge(person("bob"), grants=(some,), repos={SiteName("shop"): (RepoName("bank"),)}) != ""
    assert judge(person("bob"), grants=(some,), repos={SiteName("blog"): (RepoName("shop-eu"),)}) != ""


def test_leaving_out_builds_is_approved_by_one_who_may() -> None:
    may = attrs.evolve(ANN, types=(*APPROVE, "without-build"))
    assert judge(person("ann"), without_build=True, grants=(may, BOB)) == ""
    assert judge(person("bob"), person("ann"), without_build=True, grants=(may, BOB), signatures=2) == ""
    told = judge(person("bob"), without_build=True, grants=(may, BOB))
    assert "leaves out builds, which nobody who approved it may" in told
    outsider = GrantSettings(principal="eve", types=("without-build",))
    told = judge(person("bob"), person("eve"), without_build=True, grants=(BOB, outsider))
    assert "nobody who approved it may" in told, "one whose signature does not count lends no right"


# -- time and form ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"not_after": NOW - SKEW}, ""),
        ({"not_after": NOW - SKEW - SECOND}, "ended at 2026-03-01T11:59:29Z"),
        ({"not_after": NOW + DAY + SKEW}, ""),
        ({"not_after": NOW + DAY + SKEW + SECOND}, "ends further ahead than 24 h"),
        ({"not_after": datetime.max.replace(tzinfo=UTC)}, "further ahead"),
        ({"not_before": NOW + HOUR}, ""),
        ({"time": NOW + SKEW}, ""),
        ({"time": NOW + SKEW + SECOND}, "from the future"),
        ({"time": NOW - 10 * DAY}, ""),
        ({"not_after": NOW.replace(tzinfo=None), "not_before": NOW.replace(tzinfo=None)}, "without a zone"),
        ({"not_before": NOW + HOUR + SECOND}, "ends before it begins"),
        ({"phases": ("deploy", "rollback")}, "names the phase rollback"),
        ({"phases": ("discard",)}, "names the phase discard"),
        ({"ref": None}, "names no whole release"),
        ({"commit": None}, "names no whole release"),
        ({"ref": None, "commit": None}, "names no whole release"),
        ({"phases": (), "allow_rollback": False}, "allows nothing"),
        ({"nodes": ()}, "names no node"),
        ({"phases": (), "commit": ObjectId("c" * 40)}, ""),
    ],
)
def test_a_mandate_that_is_over_or_means_nothing_is_refused_whoever_signed(changes: dict[str, Any], says: str) -> None:
    told = judge(person("ann"), **changes)
    assert told == "" if not says else says in told
