"""A command that lies inside a mandate is outside after any change of what the mandate binds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import attrs
from hypothesis import example, given
from hypothesis import strategies as st

from deploykit.messages import BuildEvidence, DeployRequested, SitePart, SiteRelease
from deploykit.messages.site import id_of
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.trust.approval import people
from deploykit.trust.mandate import inside
from tests.support.asked import NOW, SKEW, WEB1, WEB2
from tests.support.mandates import HOUR, NEW, OLD, OLDER, WEB3, command, mandate

#: Fields of a command that its mandate leaves open, each with values that are inside.
FREE: Final[dict[str, st.SearchStrategy[Any]]] = {
    "id": st.text(min_size=1, max_size=40),
    "source": st.text(min_size=1, max_size=40),
    "time": st.datetimes().map(lambda when: when.replace(tzinfo=NOW.tzinfo)),
    "correlation_id": st.text(max_size=40),
    "extra": st.dictionaries(st.text(max_size=5), st.integers()),
    "extensions": st.dictionaries(st.text(max_size=5), st.integers()),
    "audience": st.sampled_from([(WEB1,), (WEB1, WEB2), (WEB2, WEB1)]),
    "expires": st.timedeltas(timedelta(days=-1), HOUR).map(lambda ahead: NOW + ahead),
    "requested_by": st.text(max_size=40),
    "evidence": st.just((BuildEvidence(body="YQ==", signature="Yg=="),)),
}
#: The other fields, each with values that are outside.
BOUND: Final[dict[str, st.SearchStrategy[Any]]] = {
    "site": st.sampled_from(["bank", "shop2", "Shop"]).map(SiteName),
    "ref": st.sampled_from(["refs/tags/v2", "refs/heads/v1", "refs/tags/v10", "refs/tags/v0"]).map(RefName),
    "commit": st.text("0123456789abcdef", min_size=40, max_size=40).map(ObjectId),
    "audience": st.sets(st.sampled_from([WEB3, NodeName("web10"), NodeName("WEB1")]), min_size=1).map(
        lambda more: (WEB1, *more)
    ),
    "expires": st.timedeltas(timedelta(microseconds=1), timedelta(days=9)).map(lambda more: NOW + HOUR + more),
    "phase": st.sampled_from(["deploy", "activate", "rollback"]),
    "without_build": st.just(True),
    "rollout": st.none() | st.text(min_size=1, max_size=9),
    "mandate": st.none() | st.text("0123456789abcdef", min_size=64, max_size=64),
    "override_lock": st.text(min_size=1, max_size=9),
    "parts": st.sampled_from(["shop", "theme"]).map(
        lambda repo: (SitePart(repo=RepoName(repo), ref=RefName("refs/tags/v1"), commit=ObjectId("1" * 40)),)
    ),
}
FORWARD: Final = command(phase="prepare")
BACK: Final = command(phase="rollback", ref=OLD.ref, commit=OLD.commit)


def why_not(asked: DeployRequested) -> str:
    """Judge by a mandate to prepare and to go back, on a node that has the new release live."""
    only = mandate(phases=("prepare",))
    return inside(only, asked, WEB1, NOW, OLD, NEW, skew=SKEW)


def test_each_field_of_a_command_is_bound_or_free() -> None:
    assert {field.name for field in attrs.fields(DeployRequested)} == {*FREE, *BOUND}
    assert why_not(FORWARD) == why_not(BACK) == ""


@given(st.sampled_from([FORWARD, BACK]), st.fixed_dictionaries({}, optional=FREE))
def test_what_is_free_may_be_anything(asked: DeployRequested, changes: dict[str, Any]) -> None:
    assert why_not(attrs.evolve(asked, **changes)) == ""


@given(st.sampled_from([FORWARD, BACK]), st.data())
def test_any_change_of_what_is_bound_is_outside(asked: DeployRequested, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(BOUND)))
    value = data.draw(BOUND[name])
    unchanged = value == getattr(asked, name)
    # A node that has the new release live is not sent anywhere by "going back" to it: it is there already.
    stays = asked is FORWARD and name == "phase" and value == "rollback"
    # Parts stand in place of a ref and a commit.
    beside: dict[str, Any] = {"ref": None, "commit": id_of(value)} if name == "parts" else {}
    changed = attrs.evolve(asked, **{name: value}, **beside)
    assert bool(why_not(changed)) is not (unchanged or stays), (name, value)


@given(
    st.sampled_from([OLD, OLDER, NEW]),
    st.sampled_from([None, OLD, OLDER, NEW]),
    st.sampled_from([None, OLD, OLDER, NEW]),
    st.booleans(),
)
@example(OLD, OLDER, OLD, True)
def test_a_way_back_ends_at_the_previous_release_of_the_new_one(
    target: SiteRelease, previous: SiteRelease | None, live: SiteRelease | None, allowed: bool
) -> None:
    """The rule written once more: allowed, and there already or from the new one (or nothing) to the previous one."""
    asked = command(phase="rollback", ref=target.ref, commit=target.commit)
    found = inside(mandate(allow_rollback=allowed), asked, WEB1, NOW, previous, live)
    good = allowed and (target == live or (target == previous and live in (None, NEW)))
    assert (found == "") is good


@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=4), max_size=4))
def test_people_are_the_largest_set_of_different_ones(names: Sequence[Sequence[str]]) -> None:
    """Against every way to choose a principal, or none, for each signature."""
    choices = itertools.product(*((None, *each) for each in names))
    most = max(
        len(chosen)
        for choice in choices
        if len(set(chosen := [name for name in choice if name is not None])) == len(chosen)
    )
    assert people(names) == most
