"""What a button says, and which buttons there are."""

from __future__ import annotations

import pytest

from deploykit.messages.rollout import RolloutKind
from deploykit.web.actions.shown import PlannedNode, PlanShown
from deploykit.web.pages.rolloutbuttons import RolloutButtons, abort_words, button_words, buttons_of, stages_of
from deploykit.web.projection.rolloutviews import RolloutOverview


def planned(*sizes: int, first: int = 0) -> tuple[PlannedNode, ...]:
    names = iter(range(1, 1000))
    return tuple(
        PlannedNode(node=f"web{next(names)}", stage=first + at) for at, size in enumerate(sizes) for _ in range(size)
    )


def plan(nodes: tuple[PlannedNode, ...], *, kind: RolloutKind = "deploy", ref: str = "refs/tags/v1.2", needs: int = 0,
         commit: str = "") -> PlanShown:  # fmt: skip
    return PlanShown(site="shop", kind=kind, ref=ref, commit=commit, nodes=nodes, needs=needs)


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (plan(planned(1)), "Put v1.2 live on web1"),
        (plan(planned(1, 4)), "Put v1.2 live on web1, then 4 others"),
        (plan(planned(1, 1)), "Put v1.2 live on web1, then 1 other"),
        (plan(planned(2, 3, 3)), "Put v1.2 live on web1 and web2, then 6 others"),
        (plan(planned(3, 9)), "Put v1.2 live on 3 nodes, then 9 others"),
        (plan(planned(1, first=1)), "Put v1.2 live on web1"),
        (plan(planned(5, first=1)), "Put v1.2 live on 5 nodes"),
        (plan(planned(5, 5, first=1)), "Put v1.2 live on 10 nodes in 2 batches"),
        (plan(planned(1, 4), ref="", commit="c" * 40), "Put cccccccccc live on web1, then 4 others"),
        (plan(planned(1, 4), kind="rollback", ref=""), "Take web1 back, then 4 others"),
        (plan(planned(1, 4), kind="rollback"), "Take web1 back to v1.2, then 4 others"),
        (plan(planned(1, 4), needs=2), "Ask for 2 signatures: v1.2 on web1, then 4 others"),
        (plan(planned(1), kind="rollback", ref="", needs=1), "Ask for 1 signature: the way back on web1"),
    ],
)
def test_a_button_says_what_it_does(shown: PlanShown, words: str) -> None:
    assert button_words(shown) == words


def test_another_try_says_so() -> None:
    assert button_words(plan(planned(1)), again=True) == "Try v1.2 again on web1"


def test_stages_are_named_in_their_order() -> None:
    assert [(one.title, len(one.nodes)) for one in stages_of(planned(1, 4))] == [("First", 1), ("Then", 4)]
    assert [one.title for one in stages_of(planned(1, 4, 4))] == ["First", "Batch 1", "Batch 2"]


def rollout(state: str, **counts: int) -> RolloutOverview:
    failed = ("web1",) if counts.get("failed") else ()
    return RolloutOverview(rollout="r", site="shop", state=state, counts=counts, failed=failed)


@pytest.mark.parametrize("state", ["planned", "preparing", "prepared", "canary", "rolling"])
def test_what_runs_can_be_paused_and_ended(state: str) -> None:
    found = buttons_of(rollout(state, pending=3), stages=True, lives=True)
    assert found.pause
    assert found.abort
    assert found.abort_back
    assert not found.back
    assert not found.again
    assert not found.resume
    assert found.promote == (state in ("canary", "rolling"))


def test_who_may_only_stage_may_stop_but_not_go_on_or_back() -> None:
    assert buttons_of(rollout("canary", active=1), stages=True, lives=False) == RolloutButtons(pause=True, abort=True)
    assert buttons_of(rollout("paused", active=1), stages=True, lives=False) == RolloutButtons(abort=True)
    assert not buttons_of(rollout("paused", active=1), stages=False, lives=False).any


def test_what_never_reached_a_node_offers_no_way_back() -> None:
    assert not buttons_of(rollout("failed", failed=1, pending=3), stages=True, lives=True).back
    assert buttons_of(rollout("failed", failed=1, active=1), stages=True, lives=True).back
    assert buttons_of(rollout("succeeded", active=4), stages=True, lives=True) == RolloutButtons(back=True)


def test_only_what_failed_somewhere_is_tried_again() -> None:
    assert buttons_of(rollout("failed", failed=1), stages=True, lives=True).again
    assert not buttons_of(rollout("aborted", active=1), stages=True, lives=True).again
    assert not buttons_of(rollout("rolling", failed=1), stages=True, lives=True).again


def test_a_single_command_has_no_buttons() -> None:
    one = RolloutOverview(rollout="c", site="shop", state="rolling", counts={"active": 1}, single=True)
    assert not buttons_of(one, stages=True, lives=True).any


def test_an_abort_says_how_many_nodes_go_back() -> None:
    assert abort_words(rollout("rolling", active=2, pending=1), back=True) == "Stop, and take 2 nodes back"
    assert "leave every node" in abort_words(rollout("rolling", active=2), back=False)
