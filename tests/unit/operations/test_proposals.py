"""A proposal waits for people: found, signed by several at once, withdrawn, started, or removed after a while."""

from __future__ import annotations

import json
import threading
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.errors import PolicyRefused, RolloutError, UsageError
from deploykit.fleet.journal import RolloutJournal
from deploykit.fleet.mandates import HeldMandate
from deploykit.fleet.plan import make_plan
from deploykit.messages import utc_now
from deploykit.names import NodeName, SiteName
from deploykit.operations.mandatefiles import blobs_of
from deploykit.operations.proposals import (
    KEPT_FOR,
    change_mandate,
    find_proposal,
    prune_proposals,
    read_proposal,
    withdraw,
)
from deploykit.operations.propose import mandate_for, propose
from deploykit.operations.rolloutstore import find_journal, list_rollouts
from deploykit.trust.signature import SigningKey, add_signature
from tests.support.approving import NEW, ApprovalWorld


@pytest.fixture
def world(tmp_path: Path) -> ApprovalWorld:
    return ApprovalWorld(tmp_path)


def by(key: SigningKey, held: HeldMandate) -> HeldMandate:
    return HeldMandate.of_frame(add_signature(held.frame, key))


def test_it_comes_back_as_it_was_and_is_listed(world: ApprovalWorld) -> None:
    made = world.proposed()
    assert read_proposal(made.path) == made
    (entry,) = list_rollouts(world.settings)
    assert (entry.rollout, entry.state, entry.nodes, entry.signatures) == ("shop-1", "proposed", 3, 0)
    change_mandate(made.path, lambda held: by(world.keys["ann"], held))
    assert list_rollouts(world.settings)[0].signatures == 1


def test_people_who_sign_at_once_lose_no_signature(world: ApprovalWorld) -> None:
    path = world.proposed().path
    keys = [SigningKey.generate() for _ in range(4)]
    threads = [
        threading.Thread(target=change_mandate, args=(path, lambda held, key=key: by(key, held))) for key in keys
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(blobs_of(read_proposal(path).mandate)) == 4


def test_a_plan_that_was_changed_since_is_refused(world: ApprovalWorld) -> None:
    path = world.proposed().path
    path.write_text(path.read_text().replace('"web3"', '"bank1"'))
    with pytest.raises(PolicyRefused, match="does not name bank1"):
        read_proposal(path)
    with pytest.raises(PolicyRefused):
        change_mandate(path, lambda held: by(world.keys["ann"], held))
    assert "bank1" in list_rollouts(world.settings)[0].problem


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": "x"}', '{"format": "deploykit-rollout-proposal"}'])
def test_a_damaged_one_is_named_and_hides_no_other(world: ApprovalWorld, text: str) -> None:
    path = world.proposed().path
    path.write_text(text)
    with pytest.raises(RolloutError, match="proposal"):
        read_proposal(path)
    assert list_rollouts(world.settings)[0].problem


def test_one_in_the_directory_of_another_is_refused(world: ApprovalWorld) -> None:
    path = world.proposed().path
    path.parent.rename(path.parent.with_name("shop-2"))
    with pytest.raises(RolloutError, match="another rollout than its directory"):
        read_proposal(path.parent.with_name("shop-2") / path.name)


def test_it_is_found_by_the_beginning_of_its_id(world: ApprovalWorld) -> None:
    planned = world.planned()
    for name in ("shop-20", "shop-21"):
        world.proposed(attrs.evolve(planned, plan=attrs.evolve(planned.plan, rollout=name)))
    directory = world.settings.rollouts_directory
    found = find_proposal(directory, "shop-21")
    assert found is not None
    assert found.parent.name == "shop-21"
    assert find_proposal(directory, "bank") is None
    with pytest.raises(UsageError, match="more than one"):
        find_proposal(directory, "shop-2")
    with pytest.raises(UsageError, match="is proposed, and has not begun"):
        find_journal(directory, "shop-20")


def test_once_the_rollout_has_begun_nothing_is_left_to_approve(world: ApprovalWorld) -> None:
    made = world.proposed()
    with RolloutJournal.create(world.settings.rollouts_directory, made.head):
        pass
    with pytest.raises(UsageError, match="has begun"):
        change_mandate(made.path, lambda held: by(world.keys["ann"], held))
    assert find_proposal(world.settings.rollouts_directory, "shop-1") is None
    assert [entry.state for entry in list_rollouts(world.settings)] == ["preparing"]


def test_one_that_nobody_approved_is_removed_a_week_after_its_end(world: ApprovalWorld) -> None:
    made = world.over()
    directory, end = world.settings.rollouts_directory, made.mandate.message.not_after
    assert prune_proposals(directory, end + KEPT_FOR) == ()
    assert prune_proposals(directory, end + KEPT_FOR + timedelta(seconds=1)) == ("shop-1",)
    assert not made.path.parent.exists()


def test_a_withdrawn_one_is_gone(world: ApprovalWorld) -> None:
    made = world.proposed()
    withdraw(made.path)
    assert list_rollouts(world.settings) == ()


def test_one_that_is_started_while_it_is_withdrawn_keeps_its_journal(world: ApprovalWorld) -> None:
    made = world.proposed()
    with RolloutJournal.create(world.settings.rollouts_directory, made.head) as journal:
        with pytest.raises(UsageError, match="has begun"):
            withdraw(made.path)
        assert journal.path.exists()


def test_ten_thousand_nodes_fit_and_one_more_does_not(world: ApprovalWorld) -> None:
    made = world.proposed(world.planned(10_000))
    assert len(read_proposal(made.path).mandate.message.nodes) == 10_000
    assert json.loads(made.path.read_bytes())["mandate"]
    with pytest.raises(UsageError, match="at most 10000 nodes"):
        mandate_for(world.planned(10_001), utc_now())


def test_names_that_fit_into_no_message_need_several_rollouts(world: ApprovalWorld) -> None:
    nodes = [NodeName(f"{'a' * 190}{number}") for number in range(6000)]
    plan = make_plan(site=SiteName("shop"), nodes=nodes, target=NEW, rollout="shop-1")
    with pytest.raises(UsageError, match="over the limit") as caught:
        mandate_for(world.planned(plan=plan), utc_now())
    assert caught.value.remedy == "propose several rollouts"


def test_a_mandate_reaches_no_further_than_nodes_accept(world: ApprovalWorld) -> None:
    now = utc_now()
    planned = world.planned()
    elsewhere = now.astimezone(timezone(timedelta(hours=5)))
    tomorrow = f"{now + timedelta(days=1):%Y-%m-%dT%H:%MZ}"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"not_after": now + timedelta(days=1, seconds=1)}, f"for 24 h: it must end by {tomorrow}"),
        ({"not_before": elsewhere, "not_after": now + timedelta(days=2)}, f"it must end by {tomorrow}"),
        ({"not_after": now}, "over before it begins"),
        ({"not_before": now + timedelta(hours=2), "not_after": now + timedelta(hours=1)}, "over before it begins"),
    ]
    for times, why in wrong:
        with pytest.raises(UsageError, match=why):
            mandate_for(planned, now, **times)
    later = mandate_for(planned, now, not_before=now + timedelta(days=3))
    assert later.message.not_after - later.message.not_before <= timedelta(days=1)
    assert propose(planned, later).mandate == later
