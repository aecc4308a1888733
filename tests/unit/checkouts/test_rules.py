"""Which ref gets which directory, decided on paper."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.checkouts import CheckoutRule, plan_checkouts, rule_of
from deploykit.errors import SettingsError
from deploykit.names import ObjectId, RefName
from deploykit.settings import CheckoutSettings

A = ObjectId("a" * 40)
ROOT = Path("/srv/env")


def refs(*names: str) -> dict[RefName, ObjectId]:
    return {RefName(name): A for name in names}


PUPPET = CheckoutRule(patterns=("refs/heads/*",), root=ROOT, puppet=True)
PLAIN = CheckoutRule(patterns=("refs/heads/*",), root=ROOT)


@pytest.mark.parametrize(
    ("mode", "ref", "where"),
    [
        ("trusting", "refs/heads/main", "/srv/site"),
        ("branch", "refs/heads/live", "/srv/site"),
        ("puppetmaster", "refs/heads/feature/X-1", "/srv/site/feature_x_1"),
        ("tags", "refs/tags/v1/rc", "/srv/site/v1%2Frc"),
        ("atomic", "refs/heads/topic/x", "/srv/site_topic%2Fx"),
    ],
)
def test_each_mode_puts_a_ref_where_the_original_did(mode: str, ref: str, where: str) -> None:
    settings = CheckoutSettings(mode=mode, target=Path("/srv/site"), branch="live" if mode == "branch" else "")  # type: ignore[arg-type]
    rule = rule_of(settings)
    plan = plan_checkouts(rule, refs("refs/heads/main", "refs/heads/live", ref), RefName("refs/heads/main"), {})
    assert {str(rule.root / d): r for d, r in plan.directories.items()}[where] == ref


def test_mode_normal_has_no_directories() -> None:
    rule = rule_of(CheckoutSettings(mode="normal", target=Path("/srv/site")))
    assert plan_checkouts(rule, refs("refs/heads/main"), None, {}).directories == {}


@pytest.mark.parametrize("target", ["relative", "/", "/srv/../etc", "/srv/{}"])
def test_a_target_that_is_no_place_is_refused(target: str) -> None:
    with pytest.raises(SettingsError):
        rule_of(CheckoutSettings(mode="tags", target=Path(target)))


def test_mode_branch_needs_its_branch() -> None:
    with pytest.raises(SettingsError, match="which branch"):
        rule_of(CheckoutSettings(mode="branch", target=Path("/srv/site")))


def test_names_that_would_collide_are_refused_all_of_them() -> None:
    plan = plan_checkouts(PUPPET, refs("refs/heads/a/b", "refs/heads/a_b", "refs/heads/c"), None, {})
    assert plan.directories == {"c": "refs/heads/c"}
    assert set(plan.refused) == {"refs/heads/a/b", "refs/heads/a_b"}
    assert "refs/heads/a_b" in plan.refused["refs/heads/a/b"]


def test_who_has_the_directory_keeps_it_when_another_would_collide() -> None:
    plan = plan_checkouts(PUPPET, refs("refs/heads/A", "refs/heads/a"), None, {"a": "refs/heads/a"})
    assert plan.directories == {"a": "refs/heads/a"}
    assert set(plan.refused) == {"refs/heads/A"}
    assert plan.removed == ()


def test_a_collision_of_unknown_history_removes_nothing() -> None:
    plan = plan_checkouts(PUPPET, refs("refs/heads/A", "refs/heads/a"), None, {"a": ""})
    assert plan.directories == {}
    assert plan.removed == ()


def test_directories_of_deleted_refs_go_where_the_rule_says_so() -> None:
    held = {"main": "refs/heads/main", "gone": "refs/heads/gone"}
    assert plan_checkouts(PLAIN, refs("refs/heads/main"), None, held).removed == ("gone",)
    keep = CheckoutRule(patterns=PLAIN.patterns, root=ROOT, remove=False)
    assert plan_checkouts(keep, refs("refs/heads/main"), None, held).removed == ()


def test_only_refs_that_match_the_settings_get_a_directory() -> None:
    plan = plan_checkouts(PLAIN, refs("refs/heads/main", "refs/heads/wip-x"), None, {}, ("refs/heads/m*",))
    assert plan.directories == {"main": "refs/heads/main"}


@pytest.mark.parametrize("name", [".deploykit", ".", ".."])
def test_our_own_names_and_special_ones_can_never_be_a_checkout(name: str) -> None:
    rule = CheckoutRule(patterns=("refs/heads/*",), root=ROOT, directory=name)
    plan = plan_checkouts(rule, refs("refs/heads/main"), None, {})
    assert plan.directories == {}
    assert plan.refused


def test_a_name_longer_than_a_directory_may_be_is_refused() -> None:
    plan = plan_checkouts(PUPPET, refs("refs/heads/" + "a" * 256), None, {})
    assert "longer than 255" in next(iter(plan.refused.values()))


_branch = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30)


@given(st.sets(_branch, max_size=8), st.booleans())
def test_two_refs_never_share_a_directory_and_none_leaves_the_root(names: set[str], puppet: bool) -> None:
    rule = PUPPET if puppet else PLAIN
    plan = plan_checkouts(rule, {RefName(f"refs/heads/{n}"): A for n in names}, None, {})
    assert len(set(plan.directories.values())) == len(plan.directories)
    assert len(plan.directories) + len(plan.refused) == len(names)
    for directory in plan.directories:
        assert (ROOT / directory).parent == ROOT
        assert directory not in (".", "..")
        assert directory.isascii()
    if not puppet:
        assert not plan.refused or all("longer" in why for why in plan.refused.values())
