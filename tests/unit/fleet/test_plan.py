"""What a rollout is going to do: amounts, the order, canaries, batches, and which options do not go together."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.errors import UsageError
from deploykit.fleet.options import MAX_BATCH
from deploykit.fleet.plan import Amount, Plan, RolloutOptions, Target, make_plan, natural_order
from deploykit.names import NodeName, SiteName
from tests.support.rolling import NEW, OLD, names, options, plan_of

# -- amounts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "total", "expected"),
    [
        ("0", 10, 0),
        ("3", 10, 3),
        ("30", 10, 30),
        ("0%", 10, 0),
        ("10%", 10, 1),
        ("10%", 11, 2),
        ("1%", 3, 1),
        ("100%", 7, 7),
        ("1%", 8000, 80),
        ("33%", 3, 1),
    ],
)
def test_percent_is_of_the_resolved_list_rounded_up_and_at_least_1(text: str, total: int, expected: int) -> None:
    assert Amount.parse(text).of(total) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "%",
        "-1",
        "+1",
        "1.5",
        "01",
        "101%",
        " 1",
        "1 ",
        "1\n",
        "1000001",
        "9" * 400,
        "\N{ARABIC-INDIC DIGIT ONE}",
        "ten",
        None,
        3,
        True,
    ],
)
def test_what_is_no_amount_is_refused(text: object) -> None:
    with pytest.raises(UsageError, match="not a number of nodes") as caught:
        Amount.parse(text)
    assert len(str(caught.value)) < 250


@given(st.builds(Amount, number=st.integers(0, 100), percent=st.booleans()))
def test_an_amount_is_read_as_it_is_shown(amount: Amount) -> None:
    assert Amount.parse(str(amount)) == amount


# -- options -----------------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_command_line() -> None:
    chosen = RolloutOptions()
    assert chosen.problems() == ()
    assert [str(amount) for amount in chosen.batch] == ["10%"]
    assert (chosen.first, chosen.first_nodes, chosen.quorum, chosen.deadline, chosen.seed) == (None,) * 5
    assert (chosen.order, chosen.prepare, chosen.on_failure) == ("name", "all", "stop")
    assert (chosen.max_failures.of(1000), chosen.pause, chosen.bake, chosen.timeout) == (0, 0, 0, 300)


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"first": Amount.parse("1"), "first_nodes": frozenset(names(1))}, "one of both"),
        ({"first_nodes": frozenset()}, "no node is named"),
        ({"batch": ()}, "1 to 1000 sizes"),
        ({"batch": (Amount.parse("1"), Amount.parse("0%"))}, "at least 1 node"),
        ({"quorum": Amount.parse("0")}, "quorum: expected at least 1"),
        ({"quorum": Amount.parse("50%"), "prepare": "batch"}, "quorum: only with prepare=all"),
        ({"seed": 1}, "order=random"),
        ({"seed": -1, "order": "random"}, "seed: expected"),
        ({"order": "size"}, "order: expected name or random"),
        ({"prepare": "none"}, "prepare: expected"),
        ({"on_failure": "panic"}, "on-failure: expected"),
        ({"pause": -1.0}, "pause: expected"),
        ({"pause": float("nan")}, "pause: expected"),
        ({"bake": float("inf")}, "bake: expected"),
        ({"timeout": 0.0}, "timeout: expected"),
        ({"deadline": 0.0}, "deadline: expected"),
    ],
)
def test_what_does_not_make_sense_is_found(chosen: dict[str, Any], says: str) -> None:
    wrong = attrs.evolve(RolloutOptions(), **chosen)
    assert [problem for problem in wrong.problems() if says in problem]
    with pytest.raises(UsageError, match=r"not a rollout|no node"):
        plan_of(3, wrong)


def test_all_that_is_wrong_is_found_at_once() -> None:
    wrong = RolloutOptions(batch=(), timeout=-1.0, pause=-1.0, seed=3)
    assert len(wrong.problems()) == 4


# -- order -------------------------------------------------------------------------------------------------------------


def test_nodes_follow_each_other_by_name_as_people_sort() -> None:
    assert plan_of(11).nodes == names(*range(1, 12))
    mixed = [NodeName(name) for name in ("web10.b", "web9.b", "10", "9", "db", "web010.b")]
    assert sorted(mixed, key=natural_order) == ["9", "10", "db", "web9.b", "web010.b", "web10.b"]


@given(st.lists(st.from_regex(r"[a-z0-9][a-z0-9.-]{0,8}[a-z0-9]", fullmatch=True), unique=True))
def test_any_names_have_one_order(many: list[str]) -> None:
    assert sorted(many, key=natural_order) == sorted(set(many), key=natural_order)


def test_a_random_order_is_the_same_for_the_same_seed_in_whatever_order_nodes_were_found() -> None:
    chosen = options(order="random", seed=7, batch="10%")
    made = plan_of(50, chosen)
    again = make_plan(site=SiteName("shop"), nodes=reversed(made.nodes), target=NEW, options=chosen)
    assert again.nodes == made.nodes != plan_of(50).nodes
    assert plan_of(50, options(order="random", seed=8, batch="10%")).nodes != made.nodes


def test_a_random_order_keeps_the_seed_that_was_chosen_for_it() -> None:
    made = plan_of(50, options(order="random", batch="10%"))
    assert made.options.seed is not None
    assert plan_of(50, made.options).nodes == made.nodes


# -- canaries and batches ----------------------------------------------------------------------------------------------


def sizes(plan: Plan) -> list[int]:
    """How many canaries, and how many nodes in each batch."""
    return [len(plan.canary), *map(len, plan.batches)]


@pytest.mark.parametrize(
    ("count", "chosen", "expected"),
    [
        (1, {}, [0, 1]),
        (2, {}, [1, 1]),
        (20, {}, [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1]),
        (5, {"first": "0", "batch": "2"}, [0, 2, 2, 1]),
        (5, {"first": "3", "batch": "1"}, [3, 1, 1]),
        (5, {"first": "9"}, [5]),
        (10, {"first": "15%", "batch": "100%"}, [2, 8]),
        (20, {"first": "1", "batch": "1,5,20%"}, [1, 1, 5, 4, 4, 4, 1]),
        (12, {"first": "2", "batch": "20%"}, [2, 3, 3, 3, 1]),
        (3, {"batch": "100"}, [1, 2]),
    ],
)
def test_the_last_batch_size_repeats_and_the_canary_is_1_by_default_and_0_with_one_node(
    count: int, chosen: dict[str, Any], expected: list[int]
) -> None:
    assert sizes(plan_of(count, options(**chosen))) == expected


def test_no_batch_has_more_nodes_than_a_command_names() -> None:
    assert sizes(plan_of(2500, options(batch="100%"))) == [1, MAX_BATCH, MAX_BATCH, 499]


def test_named_canaries_come_first_and_keep_their_order() -> None:
    chosen = options(first_nodes=frozenset(names(4, 10)), batch="100%")
    made = plan_of(10, chosen)
    assert made.canary == names(4, 10)
    assert made.nodes == names(4, 10, 1, 2, 3, 5, 6, 7, 8, 9)


def test_a_named_canary_that_is_not_among_the_nodes_is_refused() -> None:
    with pytest.raises(UsageError, match=r"not among the chosen nodes: canary n7, n12"):
        plan_of(3, options(first_nodes=frozenset(names(2, 12, 7))))


@given(
    st.integers(1, 60),
    st.one_of(st.none(), st.builds(Amount, number=st.integers(0, 100), percent=st.booleans())),
    st.lists(st.builds(Amount, number=st.integers(1, 100), percent=st.booleans()), min_size=1, max_size=4),
)
def test_every_node_is_in_exactly_one_stage(count: int, first: Amount | None, batch: list[Amount]) -> None:
    made = plan_of(count, RolloutOptions(first=first, batch=tuple(batch)))
    assert sorted(node for stage in made.stages for node in stage) == sorted(names(*range(1, count + 1)))
    assert made.problems() == ()


# -- the whole plan ----------------------------------------------------------------------------------------------------


def test_a_selection_without_a_node_is_no_rollout() -> None:
    with pytest.raises(UsageError, match="expected at least one"):
        plan_of(0)


def test_an_option_that_is_wrong_is_all_that_is_said() -> None:
    with pytest.raises(UsageError) as caught:
        plan_of(3, options(quorum="0%"))
    assert caught.value.problems == ("quorum: expected at least 1 node",)


def test_a_node_that_was_found_twice_is_asked_once() -> None:
    made = make_plan(site=SiteName("shop"), nodes=[*names(1, 2), *names(2, 1)], target=NEW)
    assert made.nodes == names(1, 2)


def test_a_rollback_leaves_nodes_without_a_previous_release_alone() -> None:
    made = plan_of(3, kind="rollback", target={NodeName("n1"): OLD, NodeName("n3"): NEW})
    assert made.nodes == names(1, 3)
    assert made.targets == {"n1": OLD, "n3": NEW}


def test_a_rollback_is_not_taken_back() -> None:
    with pytest.raises(UsageError, match="a rollback is not taken back"):
        plan_of(3, options(on_failure="rollback"), kind="rollback", target=OLD)


def test_a_deploy_has_one_commit() -> None:
    with pytest.raises(UsageError, match="one release for all nodes"):
        plan_of(2, target={NodeName("n1"): OLD, NodeName("n2"): NEW})


def test_a_quorum_of_more_nodes_than_there_are_is_refused() -> None:
    with pytest.raises(UsageError, match="quorum: expected at most 3"):
        plan_of(3, options(quorum="4"))


def test_rollouts_have_ids_of_their_own() -> None:
    made = [make_plan(site=SiteName("shop"), nodes=names(1), target=Target(ref=NEW.ref, commit=NEW.commit)).rollout]
    made.append(make_plan(site=SiteName("shop"), nodes=names(1), target=NEW).rollout)
    assert len(set(made)) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"nodes": names(1, 2, 3, 3)}, "twice"),
        ({"batches": (names(2), (), names(3))}, "in their order"),
        ({"canary": ()}, "in their order"),
        ({"targets": {NodeName("n1"): NEW}}, "one for each node"),
        ({"nodes": names(3, 1, 2)}, "in their order"),
    ],
)
def test_a_plan_that_does_not_hold_together_is_found(change: dict[str, Any], says: str) -> None:
    wrong = attrs.evolve(plan_of(3), **change)
    assert any(says in problem for problem in wrong.problems())
