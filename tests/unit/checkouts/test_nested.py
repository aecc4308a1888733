"""Directories in several levels, decided on paper."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.checkouts import CheckoutPlan, CheckoutRule, plan_checkouts, rule_of
from deploykit.checkouts.rules import objection, parents_of
from deploykit.errors import InvalidName, SettingsError
from deploykit.names import ObjectId, RefName, parse_ref_name
from deploykit.settings import CheckoutSettings

A = ObjectId("a" * 40)
ROOT = Path("/srv/tags")
NESTED = CheckoutRule(patterns=("refs/tags/*",), root=ROOT, nested=True)
KEEPING = attrs.evolve(NESTED, remove=False)


def plan(rule: CheckoutRule, *tags: str, **held: str) -> CheckoutPlan:
    there = {d.replace("__", "/"): f"refs/tags/{ref}" if ref else "" for d, ref in held.items()}
    return plan_checkouts(rule, {RefName(f"refs/tags/{tag}"): A for tag in tags}, None, there)


@pytest.mark.parametrize(
    ("mode", "ref", "where"),
    [
        ("tags", "refs/tags/topic/z", "/srv/site/topic/z"),
        ("tags", "refs/tags/a/b/c", "/srv/site/a/b/c"),
        ("tags", "refs/tags/v1", "/srv/site/v1"),
        ("atomic", "refs/heads/topic/z", "/srv/site_topic/z"),
        ("atomic", "refs/heads/main", "/srv/site_main"),
    ],
)
def test_a_nested_directory_is_where_the_original_had_it(mode: str, ref: str, where: str) -> None:
    rule = rule_of(CheckoutSettings(mode=mode, target=Path("/srv/site"), nested=True))  # type: ignore[arg-type]
    (directory,) = plan_checkouts(rule, {RefName(ref): A}, None, {}).directories
    assert str(rule.root / directory) == where


@pytest.mark.parametrize("mode", ["normal", "trusting", "dangerous", "branch", "puppetmaster"])
def test_nested_is_refused_where_it_would_mean_nothing_or_something_else(mode: str) -> None:
    settings = CheckoutSettings(mode=mode, target=Path("/srv/site"), branch="b", nested=True)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=rf"mode {mode} cannot be nested .*tags and atomic"):
        rule_of(settings)


@pytest.mark.parametrize(
    ("tag", "directory"),
    [
        ("-x/--upload-pack=y", "%2Dx/%2D-upload-pack%3Dy"),
        ("a%2Fb", "a%252Fb"),
        ("a,b", "a%2Cb"),
        ("é/$(id);`id`", "%C3%A9/%24%28id%29%3B%60id%60"),
        ("a/\u202e", "a/%E2%80%AE"),
        ("con/nul.txt", "con/nul.txt"),
    ],
)
def test_each_part_is_a_name_that_no_program_takes_for_anything_else(tag: str, directory: str) -> None:
    assert parse_ref_name(f"refs/tags/{tag}")
    assert list(plan(NESTED, tag).directories) == [directory]


@pytest.mark.parametrize(
    "tag", ["..", "a/..", "../../etc", "a/./b", ".deploykit/x", "a//b", "a/", "/a", "a\nb", "a\x7f"]
)
def test_a_name_that_would_lead_elsewhere_is_no_ref_and_would_be_harmless_as_one(tag: str) -> None:
    with pytest.raises(InvalidName):
        parse_ref_name(f"refs/tags/{tag}")
    for directory in plan(NESTED, tag).directories:
        assert not {"", ".", "..", ".deploykit"} & set(directory.split("/"))


def test_a_part_of_255_bytes_is_cut_and_stays_one_of_a_kind() -> None:
    found = plan(NESTED, "a/" + "b" * 255, "a/" + "b" * 254 + "c")
    assert len(found.directories) == 2
    assert all(len(part) <= 200 for d in found.directories for part in d.split("/"))


def test_a_path_that_is_too_long_as_a_whole_is_refused() -> None:
    (why,) = plan(NESTED, "/".join(["a" * 100] * 3)).refused.values()
    assert "longer than 255 bytes" in why


@pytest.mark.parametrize(
    "nobody", [{}, {"foo": "", "foo__bar": ""}, {"foo": "other"}], ids=["new", "unknown", "another's"]
)
def test_neither_of_two_that_come_together_is_shown(nobody: dict[str, str]) -> None:
    found = plan(NESTED, "foo", "foo/bar", "food", **nobody)
    assert list(found.directories) == ["food"]
    assert "would be inside foo, that of refs/tags/foo" in found.refused["refs/tags/foo/bar"]
    assert "would hold foo/bar, that of refs/tags/foo/bar" in found.refused["refs/tags/foo"]


def test_whichever_is_there_stays_and_the_other_comes_when_it_goes() -> None:
    found = plan(NESTED, "foo", "foo/bar", foo="foo")
    assert (list(found.directories), set(found.refused)) == (["foo"], {"refs/tags/foo/bar"})
    found = plan(NESTED, "foo", "foo/bar", foo__bar="foo/bar")
    assert (list(found.directories), set(found.refused)) == (["foo/bar"], {"refs/tags/foo"})
    found = plan(NESTED, "foo/bar", foo="foo")
    assert (list(found.directories), found.removed, found.refused) == (["foo/bar"], ("foo",), {})
    found = plan(NESTED, "foo", foo__bar="foo/bar")
    assert (list(found.directories), found.removed, found.refused) == (["foo"], ("foo/bar",), {})


def test_a_directory_that_is_kept_after_its_ref_is_in_the_way_by_name() -> None:
    assert "inside foo, that of refs/tags/foo" in plan(KEEPING, "foo/bar", foo="foo").refused["refs/tags/foo/bar"]
    assert (
        "hold foo/bar, that of refs/tags/foo/bar" in plan(KEEPING, "foo", foo__bar="foo/bar").refused["refs/tags/foo"]
    )


@pytest.mark.parametrize("order", list(permutations(["a", "a/b", "a/b/c"])))
def test_in_a_chain_the_one_that_is_there_stays_whichever_it_is(order: tuple[str, ...]) -> None:
    there = {order[0].replace("/", "__"): order[0]}
    assert list(plan(NESTED, *order, **there).directories) == [order[0]]


@pytest.mark.parametrize("rule", [NESTED, KEEPING], ids=["remove", "keep"])
def test_what_was_there_before_the_switch_goes_after_the_ref_is_shown_in_its_new_place(rule: CheckoutRule) -> None:
    held = {"topic%2Fz": "refs/tags/topic/z", "v1": ""}
    refs = {RefName("refs/tags/topic/z"): A, RefName("refs/tags/v1"): A}
    on = plan_checkouts(rule, refs, None, held)
    assert (set(on.directories), on.removed, on.moved) == (
        {"topic/z", "v1"},
        (),
        {"topic%2Fz": "refs/tags/topic/z"},
    )
    off = plan_checkouts(attrs.evolve(rule, nested=False), refs, None, {"topic/z": "", "v1": "refs/tags/v1"})
    assert (set(off.directories), off.removed, off.moved) == ({"topic%2Fz", "v1"}, (), {"topic/z": "refs/tags/topic/z"})


def test_what_cannot_be_shown_in_its_new_place_stays_in_the_old_one() -> None:
    long = "/".join(["a" * 60] * 5)
    old = attrs.evolve(NESTED, nested=False).directory_of(RefName(f"refs/tags/{long}"))
    found = plan_checkouts(NESTED, {RefName(f"refs/tags/{long}"): A}, None, {old: f"refs/tags/{long}"})
    assert set(found.refused) == {f"refs/tags/{long}"}
    assert found.removed == ()


def test_copies_have_a_name_that_says_whose_they_are_with_any_target() -> None:
    settings = CheckoutSettings(mode="atomic", target=Path("/srv/a,B"), nested=True)
    rule = rule_of(settings)
    assert rule.home_of("a,B_topic/z") == "a,B_topic,z"
    assert rule.directory_in("a,B_topic,z") == "a,B_topic/z"
    assert rule.directory_in("a,b_topic,z") == "a,b_topic/z", "as a file system that ignores case may list it"
    assert rule_of(attrs.evolve(settings, mode="trusting", nested=False)).directory_in("a,B") == "a,B"


def test_what_a_directory_is_in() -> None:
    assert parents_of("v1") == ()
    assert parents_of("a/b/c") == ("a", "a/b")


_part = st.sampled_from(["a", "b", "A", "a,b", "..", ".", "", ".deploykit", "-", "%2F", "é", "x" * 120, "\n"])
_tag = st.lists(_part, min_size=1, max_size=4).map("/".join)
_rules = st.sampled_from(
    [
        {"root": ROOT},
        {"root": ROOT.parent, "directory": "tags_{}"},
        {"root": ROOT.parent, "directory": "a,B_{}"},
    ]
)


@given(
    st.sets(_tag, max_size=10),
    st.dictionaries(_tag, st.booleans(), max_size=5),
    _rules,
    st.booleans(),
    st.booleans(),
)
def test_no_two_refs_share_or_contain_each_others_directory_and_none_leaves_the_root(
    tags: set[str], before: dict[str, bool], where: dict[str, object], remove: bool, was_nested: bool
) -> None:
    rule = CheckoutRule(patterns=("refs/tags/*",), nested=True, remove=remove, **where)  # type: ignore[arg-type]
    old = attrs.evolve(rule, nested=was_nested)
    refs = {RefName(f"refs/tags/{tag}"): A for tag in tags}
    # What was there before was shown by the same rules, with names that are known, or not any more.
    shown = plan_checkouts(old, {RefName(f"refs/tags/{tag}"): A for tag in before}, None, {}).directories
    held = {d: ref if before[ref.removeprefix("refs/tags/")] else "" for d, ref in shown.items()}
    found = plan_checkouts(rule, refs, None, held)
    assert {*found.directories.values(), *found.refused} == set(refs)
    assert not set(found.directories.values()) & set(found.refused)
    standing = {*found.directories, *(d for d in held if d not in found.removed and d not in found.moved)}
    for directory in found.directories:
        assert not objection(directory, nested=True)
        assert not set(parents_of(directory)) & standing
        assert Path(f"{rule.root}/{directory}").is_relative_to(rule.root)
        assert not {"", ".", "..", ".deploykit"} & set(directory.split("/"))
        assert rule.directory_in(rule.home_of(directory)) == directory
    homes = [rule.home_of(directory) for directory in {*standing, *found.moved}]
    assert len(set(homes)) == len(homes)
    assert all("/" not in home and len(home) <= 255 for home in homes)
    assert set(found.moved.values()) <= set(refs)
    assert not {*found.removed, *found.moved} & set(found.directories)
