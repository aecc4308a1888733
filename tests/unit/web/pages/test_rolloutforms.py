"""What somebody types into the form of a rollout, and what is asked of the console by that."""

from __future__ import annotations

import pytest

from deploykit.web.actions.asked import DeployAsked, NodesAsked, OptionsAsked, RollbackAsked
from deploykit.web.pages.rolloutforms import BOX, MOST_BOXES, boxes_of, typed_of


def test_a_whole_form_becomes_what_is_asked() -> None:
    given = {
        "ref": "refs/tags/v1", "who": "list", f"{BOX}web-1": "1", "nodes": " web-2,\n web-3 ", "reason": " a fix ",
        "first": "2", "first_nodes": "web-1 web-2", "batch": "1, 5,20%", "on_failure": "rollback", "approval": "yes",
        "without_build": "yes", "override_lock": "it burns", "commit": "abc", "not_after": "2026-12-01T00:00:00Z",
    }  # fmt: skip
    assert typed_of("shop", given).deploy("digest") == DeployAsked(
        site="shop",
        ref="refs/tags/v1",
        commit="abc",
        chosen=NodesAsked(nodes=("web-1", "web-2", "web-3")),
        options=OptionsAsked(first="2", first_nodes=("web-1", "web-2"), batch=("1", "5", "20%"), on_failure="rollback"),
        reason="a fix",
        without_build=True,
        override_lock="it burns",
        approval=True,
        not_after="2026-12-01T00:00:00Z",
        plan="digest",
    )


def test_a_typed_ref_wins_over_a_chosen_one() -> None:
    assert typed_of("shop", {"ref": "refs/tags/v1", "typed": "v2"}).deploy().ref == "v2"
    assert typed_of("shop", {"to": "refs/tags/v1", "typed": "v2", "who": "all"}).rollback() == RollbackAsked(
        site="shop", to="v2", chosen=NodesAsked(everybody=True)
    )


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ({}, NodesAsked()),
        ({"who": "everybody"}, NodesAsked()),  # not a word of the form
        ({"nodes": "web-1", "select": "a"}, NodesAsked()),
        ({"who": "all", "nodes": "web-1"}, NodesAsked(everybody=True)),
        ({"who": "list"}, NodesAsked()),
        ({"who": "select", "nodes": "web-1", "select": "env=live"}, NodesAsked(select="env=live")),
    ],
)
def test_nodes_are_only_chosen_by_the_way_that_is_ticked(given: dict[str, str], chosen: NodesAsked) -> None:
    assert typed_of("shop", given).chosen() == chosen


def test_what_is_too_long_is_a_problem_of_its_field_and_nothing_is_cut() -> None:
    typed = typed_of("shop", {"who": "list", "reason": "x" * 1101, "nodes": "web-1 " * 9000, "ref": "v1"})
    assert set(typed.problems) == {"reason"}
    assert len(typed.get("reason")) == 1101
    many = " ".join(f"node-{at:05d}" for at in range(6000))
    assert set(typed_of("shop", {"nodes": many}).problems) == {"nodes"}


def test_the_options_are_open_only_where_one_is_chosen() -> None:
    assert not typed_of("shop", {"ref": "v1", "who": "all", "reason": "x"}).opens_options
    assert typed_of("shop", {"first": "2"}).opens_options


def test_a_big_site_has_no_boxes() -> None:
    names = [f"n{at}" for at in range(MOST_BOXES + 1)]
    assert boxes_of(names) == ()
    assert boxes_of(names[:-1]) == tuple(names[:-1])
