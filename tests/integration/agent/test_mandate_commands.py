"""Mandates on one node: what lies inside one is obeyed, and nothing else; whoever sends it, whenever. No bus."""

from __future__ import annotations

import contextlib
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import attrs
import pytest

from deploykit.daemons.agent import deploy_decisions, deploys, mandate_asks
from deploykit.git.repository import Repository
from deploykit.ids import Claim
from deploykit.messages import ApprovalWanted, DeployPhase, DeployRequested, Message
from deploykit.names import NodeName, ObjectId, RefName, SiteName
from deploykit.release import Runner, Site
from deploykit.settings import GrantSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.signature import HEADER, add_signature, body_digest, copy_digest, frame_digest, sign
from deploykit.trust.sshsig import encode_header
from deploykit.wire import Frame, encode
from tests.support.certificates import AUTHORITY, FOREVER, CertificateMaker, certify, packed
from tests.support.keys import fixed_key
from tests.support.mandated import BLOG, KEYS, SHOP, WEB1, WEB2, MandatedNode, digest, parts, signed, with_parts
from tests.support.securitykeys import SoftwareSecurityKey
from tests.support.wait import wait_until

HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)


@pytest.fixture
def node(tmp_path: Path) -> MandatedNode:
    return MandatedNode(tmp_path)


@pytest.fixture(autouse=True)
def asks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node may ask as often as it likes; when it may, has a test of its own."""
    monkeypatch.setattr(mandate_asks, "ASK_EVERY", 0.0)


# -- what others can add to a mandate ----------------------------------------------------------------------------------


class Certified:
    """A node that trusts an authority; bob signs with certificates of it.

    Args:
        node: some node.
        patch: puts the authority among its signers.
    """

    def __init__(self, node: MandatedNode, patch: pytest.MonkeyPatch) -> None:
        self.node = node
        line = f'* cert-authority,namespaces="deploykit" {AUTHORITY.public_openssh}\n'

        def signers() -> AllowedSigners:
            lines = (
                f"{name.rstrip('2')} {cast(Any, key).public_openssh}\n"
                for name, key in node.trusted.items()
                if name != "bob"
            )
            return AllowedSigners.parse(line + "".join(lines))

        patch.setattr(node, "signers", signers)
        node.start()

    def by_bob(self, frame: Frame, *names: str, before: int = FOREVER) -> str:
        """Bob's signature with a certificate for these names, as in a header."""
        made = CertificateMaker(key=KEYS["bob"].public_blob, principals=packed(*names), before=before).make()
        return encode_header(certify(KEYS["bob"].sign_body(frame.body), made))


@pytest.fixture
def certified(node: MandatedNode, monkeypatch: pytest.MonkeyPatch) -> Certified:
    return Certified(node, monkeypatch)


@pytest.mark.parametrize("first", ["the poor copy", "the good one"])
@pytest.mark.parametrize("poor", ["guest", "ann"])
def test_another_certificate_of_the_same_key_shadows_none_that_counts(
    certified: Certified, first: str, poor: str
) -> None:
    node = certified.node
    mandate = node.mandate("ann")
    (by_ann,) = parts(mandate)
    good = with_parts(mandate, by_ann, certified.by_bob(mandate, "ann", "bob"))
    copy = with_parts(mandate, by_ann, certified.by_bob(mandate, poor))
    for frame in (copy, good) if first == "the poor copy" else (good, copy):
        node.send(frame)
    node.start()
    assert node.ask(node.command(mandate)) == "success"


def test_a_copy_with_a_poorer_certificate_is_refused_in_an_answer_that_is_none_to_the_genuine_command(
    certified: Certified,
) -> None:
    node = certified.node
    mandate = node.mandate("ann", "cid")
    node.send(mandate)
    frame = encode(node.command(mandate))
    poor = with_parts(frame, certified.by_bob(frame, "guest"))
    genuine = with_parts(frame, certified.by_bob(frame, "coordinator"))
    for copy in (poor, genuine):
        node.send(copy)
    refused, success = node.reports
    assert (refused.outcome, refused.answers) == ("refused", frame_digest(poor))
    assert (success.outcome, success.answers) == ("success", copy_digest(genuine))
    assert refused.answers not in (copy_digest(genuine), frame_digest(genuine))


def test_a_certificate_that_has_ended_makes_room_for_a_good_one_that_came_before(certified: Certified) -> None:
    node = certified.node
    mandate = node.mandate("ann")
    (by_ann,) = parts(mandate)
    soon = int((node.now + MINUTE).timestamp())
    good = with_parts(mandate, by_ann, certified.by_bob(mandate, "bob"))
    node.send(good)
    node.send(with_parts(mandate, by_ann, certified.by_bob(mandate, "bob", "guest", before=soon)))
    node.now += 2 * MINUTE
    command = node.command(mandate)
    assert node.ask(command) == "", "it is asked for"
    node.send(good)
    assert node.ask(command) == "success"


def test_a_copy_by_a_key_without_rights_takes_away_no_signature_that_does_not_count_yet(node: MandatedNode) -> None:
    mandate, trusted = node.mandate("ann", "bob"), dict(node.trusted)
    grants = node.settings.trust.grants
    people = tuple(grant for grant in grants if grant.principal not in ("ann", "bob"))
    node.settings = attrs.evolve(node.settings, trust=attrs.evolve(node.settings.trust, grants=people))
    node.start()
    node.send(mandate)
    node.send(signed(mandate, "eve"))
    node.mandates.trust.policy = attrs.evolve(node.mandates.trust.policy, grants=grants)
    assert node.trusted == trusted
    assert node.ask(node.command(mandate)) == "success"


def test_copies_of_a_command_refuse_nothing_before_the_rest_of_its_signatures_can_be_here(
    node: MandatedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mandate_asks, "ASK_EVERY", 3600.0)
    mandate = node.mandate("ann", "bob")
    node.send(with_parts(mandate, parts(mandate)[0]))  # who may only write to the broker dropped one
    command = node.command(mandate)
    assert [node.ask(command) for _ in range(5)] == [""] * 5
    assert node.wanted == [digest(mandate)]
    node.send(mandate)
    assert node.ask(command) == "success"


def test_only_the_mandate_that_was_obeyed_has_a_lasting_place_not_every_one_of_its_rollout(
    node: MandatedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node.mandates.store, "_most", 4)
    first = node.mandate("ann", "bob")
    node.send(first)
    assert node.ask(node.command(first)) == "success"
    for n in range(10):  # one of the people signs more for the rollout that runs
        node.send(node.mandate("cid", reason=str(n)))
    other = node.mandate("ann", "bob", rollout="r2")
    node.send(other)
    node.start()
    assert digest(first) in node.mandates.store
    assert digest(other) in node.mandates.store
    assert len(node.mandates.store) == 4


# -- what is obeyed ----------------------------------------------------------------------------------------------------


def test_a_rollout_with_all_its_steps_lies_inside_one_mandate(node: MandatedNode) -> None:
    mandate = node.mandate("ann", "bob")
    node.send(mandate)
    assert [node.ask(node.command(mandate, phase)) for phase in ("prepare", "activate", "deploy")] == ["success"] * 3
    assert node.live() == "2"
    assert node.ask(node.command(mandate, "rollback", "v1")) == "success"
    assert node.live() == "1"
    assert node.wanted == []


def test_without_a_mandate_a_site_that_asks_for_one_obeys_nobody(node: MandatedNode) -> None:
    for phase in ("deploy", "prepare", "activate", "rollback"):
        for who in ("ops", "coordinator", "ann"):
            assert node.ask(node.command(None, phase), who).startswith("refused"), (phase, who)
    refused = node.ask(node.command(None), "ops")
    assert (
        "site shop needs the approval of 2 different people, and the command names none: propose the rollout" in refused
    )
    assert node.live() == "1"


def test_the_key_that_runs_rollouts_may_nothing_without_a_mandate_and_who_approves_sends_no_command(
    node: MandatedNode,
) -> None:
    blog = node.command(None, site=BLOG)
    assert node.ask(blog, "coordinator").startswith("refused")
    mandate = node.mandate("ann", "bob")
    node.send(mandate)
    for who in ("ann", "bob", "eve"):
        assert node.ask(node.command(mandate), who).startswith("refused"), who
    assert node.live() == "1"


def test_a_site_that_asks_for_nothing_is_deployed_as_ever_and_under_a_mandate_by_who_runs_rollouts(
    node: MandatedNode,
) -> None:
    assert node.ask(node.command(None, site=BLOG), "ops") == "success"
    mandate = node.mandate("dan", site=BLOG)
    assert node.ask(node.command(mandate, site=BLOG)) == "", "it is not here"
    node.send(mandate)
    assert node.ask(node.command(mandate, site=BLOG)) == "success"


def test_a_discard_and_an_abort_need_no_mandate(node: MandatedNode) -> None:
    mandate = node.mandate("ann", "bob")
    node.send(mandate)
    assert node.ask(node.command(mandate, "prepare")) == "success"
    node.abort("coordinator")
    assert "aborted" in node.ask(node.command(mandate, "activate"))
    assert node.ask(node.command(None, "discard")) == "success"
    assert node.live() == "1"


# -- who signed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "why"),
    [
        (("ann",), "needs the approval of 2 different people, and has that of 1"),
        (("ann", "ann2"), "several keys of one principal are one person"),
        (("ann", "dan"), f"key {KEYS['dan'].fingerprint} may not approve it"),
        (("ann", "eve"), f"key {KEYS['eve'].fingerprint} may not approve it"),
        (("ann", "coordinator"), "has that of 1"),
        (("dan", "eve"), "has that of 0"),
    ],
)
def test_too_few_people_are_asked_for_once_more_and_then_named(
    node: MandatedNode, by: tuple[str, ...], why: str
) -> None:
    mandate = node.mandate(*by)
    node.send(mandate)
    command = node.command(mandate)
    assert node.ask(command) == "", "more signatures may be under way"
    assert node.wanted == [digest(mandate)]
    refused = node.ask(command)
    assert refused.startswith("refused")
    assert why in refused
    assert node.ask(command) == refused, "for good"
    assert node.live() == "1"


def test_signatures_that_come_apart_or_in_another_order_or_with_more_are_collected(node: MandatedNode) -> None:
    mandate = node.mandate("ann")
    node.send(mandate)
    node.send(signed(mandate, "eve", "bob"))
    node.send(with_parts(mandate, *parts(signed(mandate, "bob", "ann"))[::-1]))
    node.send(signed(mandate, "eve"))
    node.send(mandate)
    assert node.ask(node.command(mandate)) == "success", "a copy with fewer signatures takes nothing away"
    counted = [record.reason.partition(":")[0] for record in node.recorded("rollout.approval")]
    assert counted == ["kept, and not enough yet", "it counts"]
    node.start()
    assert node.ask(node.command(mandate)) == "success", "all of them are on the disk"


def test_two_signatures_that_come_at_once_are_both_kept(node: MandatedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    mandate = node.mandate("ann")
    known, both = node.mandates.store.signatures, threading.Barrier(2)

    def slow(digest: str) -> Any:
        found = known(digest)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.3)
        return found

    monkeypatch.setattr(node.mandates, "is_copy", lambda _: False)
    monkeypatch.setattr(node.mandates.store, "signatures", slow)
    workers = [threading.Thread(target=node.send, args=(signed(mandate, who),)) for who in ("ann", "bob")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert node.ask(node.command(mandate)) == "success"


def test_a_mandate_with_one_bad_signature_counts_by_its_good_ones(node: MandatedNode) -> None:
    good = node.mandate("ann", "bob")
    ann, bob = parts(good)
    other = parts(node.mandate("cid", rollout="another"))[0]
    for bad in (parts(signed(good, "nobody"))[0], other, "garbage", ann):
        node.send(with_parts(good, ann, bad))
    command = node.command(good)
    assert node.ask(command) == ""
    assert "has that of 1" in node.ask(command)
    node.send(with_parts(good, other, bob))
    assert node.ask(node.command(good)) == "success"


def test_a_stranger_adds_nothing_and_changes_nothing(node: MandatedNode) -> None:
    mandate = node.mandate("ann", "bob")
    node.send(signed(mandate, "nobody"))
    node.send(Frame({k: v for k, v in mandate.headers.items() if k != HEADER}, mandate.body))
    changed = Frame(mandate.headers, mandate.body.replace(b"refs/tags/v2", b"refs/tags/v3"))
    node.send(changed)
    assert len(node.mandates.store) == 0
    assert node.ask(node.command(changed)) == ""


def test_more_keys_of_one_person_than_a_header_holds_keep_nobody_else_out(
    node: MandatedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    mandate = node.mandate("ann")
    for at in range(40, 46):
        monkeypatch.setitem(KEYS, f"ann{at}", fixed_key(at))
        node.trusted[f"ann{at}"] = KEYS[f"ann{at}"]
        node.send(signed(mandate, f"ann{at}"))
    node.send(signed(mandate, "bob"))
    assert node.ask(node.command(mandate)) == "success"


def test_who_is_revoked_after_the_mandate_came_does_not_count_any_more(node: MandatedNode) -> None:
    mandate = node.mandate("ann", "bob")
    node.send(mandate)
    assert node.ask(node.command(mandate, "prepare")) == "success"
    del node.trusted["bob"]
    command = node.command(mandate, "activate")
    assert node.ask(command) == ""
    node.send(mandate)
    refused = node.ask(command)
    assert "needs the approval of 2 different people, and has that of 1" in refused
    assert f"key {KEYS['bob'].fingerprint} is not among the allowed signers" in refused
    node.send(signed(mandate, "ann", "cid"))
    assert node.ask(node.command(mandate, "activate")) == "success", "another person signed the same mandate"


def test_a_key_that_is_gone_for_a_while_counts_again_when_it_is_back(node: MandatedNode) -> None:
    """Copies that came meanwhile took its signature away from nobody."""
    mandate = node.mandate("ann", "bob")
    node.send(mandate)
    bob = node.trusted.pop("bob")
    node.send(signed(mandate, "cid"))
    node.send(signed(mandate, "eve"))
    node.trusted["bob"] = bob
    del node.trusted["ann"], node.trusted["cid"]
    command = node.command(mandate)
    assert node.ask(command) == ""
    refused = node.ask(command)
    assert f"has that of 1: key {KEYS['eve'].fingerprint} may not approve it" in refused
    assert f"key {KEYS['bob'].fingerprint} counts" in refused
    assert f"key {KEYS['cid'].fingerprint} is not among the allowed signers" in refused
    node.trusted["ann"] = KEYS["ann"]
    assert node.ask(node.command(mandate)) == "success"


def test_a_mandate_of_which_every_signer_is_revoked_is_asked_for_and_at_last_refused_with_why(
    node: MandatedNode,
) -> None:
    del node.trusted["bob"]
    mandate = node.mandate("bob")
    node.send(mandate)
    command = node.command(mandate)
    for _ in range(3):
        assert node.ask(command) == ""
        node.send(mandate)
    refused = node.ask(command)
    assert "though it was asked for 3 times; the last copy of it was refused: key SHA256:" in refused
    assert "is not among the allowed signers" in refused


def test_the_revoked_signer_is_noticed_while_the_command_waits_for_its_turn(node: MandatedNode) -> None:
    mandate = node.mandate("ann", "bob")
    node.send(mandate)
    command = node.command(mandate)
    answers: list[str] = []
    worker = threading.Thread(target=lambda: answers.append(node.ask(command)))
    with node.shop.site.locked():
        worker.start()
        wait_until(lambda: node.ids.claimed_at(KEYS["coordinator"].fingerprint, command.id), "the claim")
        del node.trusted["ann"]
    worker.join(60)
    assert "has that of 1" in answers[0]
    assert node.live() == "1"


@pytest.mark.parametrize("present", [True, False])
def test_a_site_that_asks_for_a_person_counts_only_keys_that_show_presence(tmp_path: Path, present: bool) -> None:
    node = MandatedNode(tmp_path, require="person")
    mandate = node.mandate("tess" if present else "ann")
    node.send(mandate)
    command = node.command(mandate)
    if present:
        assert node.ask(command) == "success"
        return
    assert node.ask(command) == ""
    assert "shows no person's presence (ssh-ed25519)" in node.ask(command)


def test_threat_44_the_other_form_of_an_ecdsa_signature_is_the_same_signature(tmp_path: Path) -> None:
    """Authenticators make `s` or `n - s`; whoever sees one can make the other."""
    node = MandatedNode(tmp_path, require="person", signatures=2)
    low, high = SoftwareSecurityKey.ecdsa(seed=3, high_s=False), SoftwareSecurityKey.ecdsa(seed=3, high_s=True)
    plain = node.mandate()
    for key in (low, high):
        node.send(sign(plain, key))
    assert len(node.recorded("rollout.approval")) == 1
    doubled = with_parts(plain, *parts(sign(plain, low)), *parts(sign(plain, high)))
    node.send(doubled)
    command = node.command(plain)
    assert node.ask(command) == ""
    assert "has that of 1" in node.ask(command), "twice by one key is one person"
    node.send(add_signature(sign(plain, high), KEYS["ann"]))
    again = node.command(plain)
    assert node.ask(again) == ""
    assert "shows no person's presence" in node.ask(again)


def test_to_leave_builds_out_is_for_those_who_approved_it_together(tmp_path: Path) -> None:
    """One of two approvers has the right; the key that runs the rollout needs none."""
    node = MandatedNode(tmp_path, signatures=2, require_build=("tests",))
    mandate = node.mandate("ann", "bob", without_build=True)
    node.send(mandate)
    command = node.command(mandate, without_build=True)
    assert node.ask(command) == ""
    assert "leaves out builds, which nobody who approved it may" in node.ask(command)
    right = GrantSettings(principal="bob", types=("without-build",))
    node.settings = attrs.evolve(
        node.settings, trust=attrs.evolve(node.settings.trust, grants=(*node.settings.trust.grants, right))
    )
    node.start()
    assert node.ask(node.command(mandate)).startswith("refused: no "), "the gate is closed"
    assert node.ask(node.command(mandate, without_build=True)) == "success"
    assert "without a build" in node.reports[-1].detail


# -- what lies outside -------------------------------------------------------------------------------------------------

OUTSIDE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another site": ({"site": BLOG}, {}, "site blog, the command for shop"),
    "another rollout": ({}, {"rollout": "r2"}, "rollout r1, the command for r2"),
    "no rollout": ({}, {"rollout": None}, "names a mandate and no rollout"),
    "another commit": ({}, {"commit": ObjectId("f" * 40)}, "the command for"),
    "another ref": ({}, {"ref": RefName("refs/tags/v9")}, "the command for"),
    "another node": ({"nodes": (WEB2,)}, {}, ""),
    "a node more": ({"nodes": (WEB1,)}, {"audience": (WEB1, WEB2)}, "does not name node web2"),
    "another phase": ({"phases": ("prepare",)}, {}, "allows prepare, the command is to deploy"),
    "no way back": ({"allow_rollback": False}, {"phase": "rollback", "tag": "v1"}, "does not allow to go back"),
    "too early": ({"early": HOUR / 2}, {}, "begins at"),
    "an expiry after its end": ({"late": MINUTE}, {}, "after the mandate ends"),
    "without a build": ({}, {"without_build": True}, "leave out builds"),
    "over a lock": ({}, {"override_lock": "now"}, "override a lock"),
    "no digest": ({}, {"mandate": "latest"}, "no digest"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_command_outside_its_mandate_is_refused_with_what_differs(node: MandatedNode, name: str) -> None:
    mandated, commanded, why = OUTSIDE[name]
    mandated, commanded = dict(mandated), dict(commanded)
    if early := mandated.pop("early", None):
        mandated["not_before"] = node.now + early
    if late := mandated.pop("late", None):
        mandated["not_after"] = node.now + late
    mandate = node.mandate("ann", "bob", **mandated)
    node.send(mandate)
    phase: DeployPhase = commanded.pop("phase", "deploy")
    command = attrs.evolve(node.command(mandate, phase, commanded.pop("tag", "v2")), **commanded)
    answer = node.ask(command)
    if name == "another node":
        assert (answer, len(node.mandates.store)) == ("", 0), "it is none of this node's"
    else:
        assert answer.startswith("refused"), answer
        assert why in answer
    assert node.live() == "1"


def test_a_second_rollout_and_a_replay_under_the_mandate_change_nothing(node: MandatedNode) -> None:
    mandate = node.mandate("ann", "bob")
    node.send(mandate)
    command = node.command(mandate)
    assert node.ask(command) == "success"
    node.shop.deploy("v3")
    node.ask(command)
    assert node.live() == "3", "its id is done"
    assert "rollout r1, the command for r2" in node.ask(node.command(mandate, rollout="r2"))
    assert "live is" in node.ask(node.command(mandate, "rollback", "v1")), "the way back starts where the rollout led"
    assert node.live() == "3"


def test_after_its_end_a_mandate_lets_nothing_pass_not_even_the_way_back(node: MandatedNode) -> None:
    mandate = node.mandate("ann", "bob")
    node.send(mandate)
    assert node.ask(node.command(mandate)) == "success"
    node.now += HOUR + 31 * SECOND
    for phase, tag in (("rollback", "v1"), ("deploy", "v2")):
        command = node.command(mandate, phase, tag, expires=node.now + MINUTE)  # type: ignore[arg-type]
        refused = node.ask(command)
        assert refused.startswith("refused: the mandate ended at "), refused
    node.send(mandate)
    assert node.live() == "2"


def test_a_replay_of_a_mandate_after_its_end_is_not_kept_and_its_commands_are_refused(node: MandatedNode) -> None:
    mandate = node.mandate("ann", "bob")
    node.now += HOUR + 31 * SECOND
    node.send(mandate)
    assert len(node.mandates.store) == 0
    assert "the mandate ended at" in node.ask(node.command(mandate, expires=node.now + MINUTE))


def test_a_mandate_that_reaches_too_far_ahead_is_not_kept(node: MandatedNode) -> None:
    mandate = node.mandate("ann", "bob", not_after=node.now + 25 * HOUR)
    node.send(mandate)
    assert len(node.mandates.store) == 0
    command = node.command(mandate)
    assert node.ask(command) == ""
    assert "ends further ahead than 24 h" in node.ask(command)


def test_a_way_back_leads_only_to_this_nodes_own_previous_release(node: MandatedNode) -> None:
    assert node.shop.deploy("v2").outcome == "success"
    mandate = node.mandate("ann", "bob", ref=RefName("refs/tags/v3"), commit=ObjectId(node.commits["v3"]))
    node.send(mandate)
    assert node.ask(node.command(mandate, "deploy", "v3")) == "success"
    refused = node.ask(node.command(mandate, "rollback", "v1"))
    assert "the previous release" in refused
    assert "the command names" in refused
    assert node.live() == "3"
    assert node.ask(node.command(mandate, "rollback", "v2")) == "success"
    assert node.live() == "2"


def test_a_stolen_key_that_runs_rollouts_cannot_walk_a_node_back_release_by_release(node: MandatedNode) -> None:
    assert node.shop.deploy("v2").outcome == "success"
    assert node.shop.deploy("v3").outcome == "success"
    mandate = node.mandate("ann", "bob", ref=None, commit=None, phases=())
    node.send(mandate)
    assert node.ask(node.command(mandate, "rollback", "v2")) == "success"
    assert node.ask(node.command(mandate, "rollback", "v2")) == "success", "sent again under another id"
    refused = node.ask(node.command(mandate, "rollback", "v1"))
    assert "took the node back to v2" in refused
    node.start()
    assert node.ask(node.command(mandate, "rollback", "v1")).startswith("refused"), "also after a restart"
    assert node.live() == "2"
    again = node.mandate("ann", "bob", ref=None, commit=None, phases=(), rollout="r2")
    node.send(again)
    assert node.ask(node.command(again, "rollback", "v1", rollout="r2")) == "success"
    assert node.live() == "1"


# -- what is interrupted -----------------------------------------------------------------------------------------------


def claim(node: MandatedNode, command: DeployRequested) -> None:
    body = encode(command).body
    keys = (KEYS["coordinator"].fingerprint,)
    assert node.ids.claim(keys, command.id, body_digest(body), node.now, keep_until=command.expires) is Claim.FRESH


def test_a_mandate_that_ends_while_a_deploy_runs_stops_nothing_half_way(node: MandatedNode) -> None:
    mandate = node.mandate("ann", "bob")
    node.send(mandate)
    hold = node.shop.path / "shared" / "hold"
    hold.touch()
    command = node.command(mandate)
    answers: list[str] = []
    worker = threading.Thread(target=lambda: answers.append(node.ask(command)))
    worker.start()
    wait_until((node.shop.path / "shared" / "held").exists, "the script")
    node.now += 2 * HOUR
    hold.unlink()
    worker.join(60)
    assert (answers, node.live()) == (["success"], "2")


def test_a_command_that_a_crash_cut_off_goes_on_after_the_end_of_its_mandate(node: MandatedNode) -> None:
    mandate = node.mandate("ann", "bob")
    node.send(mandate)
    command = node.command(mandate)
    claim(node, command)
    node.now += HOUR + MINUTE
    node.start()
    assert node.ask(command) == "success", "it was in time when it was claimed"
    fresh = node.command(mandate, "rollback", "v1", expires=node.now + MINUTE)
    assert "the mandate ended at" in node.ask(fresh)


def test_a_command_that_a_crash_cut_off_does_not_go_on_when_its_signer_was_revoked(node: MandatedNode) -> None:
    mandate = node.mandate("ann", "bob")
    node.send(mandate)
    command = node.command(mandate)
    claim(node, command)
    node.start()
    del node.trusted["bob"]
    node.ask(command)
    assert "has that of 1" in node.ask(command) or "has that of 1" in node.reports[-1].detail
    assert node.live() == "1"


def test_what_was_carried_out_before_a_crash_is_answered_whatever_became_of_its_mandate(node: MandatedNode) -> None:
    mandate = node.mandate("ann", "bob")
    node.send(mandate)
    command = node.command(mandate)
    claim(node, command)
    with Repository(node.shop.repo.path) as source:
        runner = Runner(Site(node.shop.path), node="web1")
        done = runner.deploy(source, "refs/tags/v2", node.commits["v2"], request=command.id)
    assert done.outcome == "success"
    node.trusted = {name: node.trusted[name] for name in ("coordinator",)}
    for file in (node.settings.state / "mandates").iterdir():
        file.unlink()
    node.start()
    assert node.ask(command) == "success"
    assert node.wanted == []


def test_a_command_that_is_claimed_and_has_lost_its_mandate_asks_for_it(node: MandatedNode) -> None:
    mandate = node.mandate("ann", "bob")
    command = node.command(mandate)
    claim(node, command)
    assert node.ask(command) == ""
    node.send(mandate)
    assert node.ask(command) == "success"


def test_a_done_command_is_answered_again_whatever_became_of_its_mandate(
    node: MandatedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploy_decisions, "_REPEAT_AFTER", 0.0)
    mandate = node.mandate("ann", "bob")
    node.send(mandate)
    node.start()
    obeyed, refused = node.command(mandate), node.command(mandate, "rollback", "v3")
    assert node.ask(obeyed) == "success"
    first = node.ask(refused)
    assert first.startswith("refused")
    for file in (node.settings.state / "mandates").iterdir():
        file.unlink()
    node.start()
    assert (node.ask(obeyed), node.ask(refused)) == ("success", first)
    assert node.wanted == []


# -- what is lost and asked for ----------------------------------------------------------------------------------------


def test_a_command_before_its_mandate_is_neither_claimed_nor_answered_and_obeyed_when_it_comes_again(
    node: MandatedNode,
) -> None:
    mandate = node.mandate("ann", "bob")
    command = node.command(mandate)
    assert node.ask(command) == ""
    assert node.ids.claimed_at(KEYS["coordinator"].fingerprint, command.id) is None
    assert node.wanted == [digest(mandate)]
    (record,) = node.recorded("deploy")
    assert (record.decision, "it was asked for" in record.reason) == ("denied", True)
    node.send(mandate)
    assert node.ask(command) == "success"
    assert node.recorded("deploy")[-1].details["approved_by"].count("SHA256:") == 2


def test_a_command_waits_a_moment_for_a_mandate_that_is_just_behind_it(node: MandatedNode) -> None:
    node.wait = 30.0
    node.start()
    mandate = node.mandate("ann", "bob")
    answers: list[str] = []
    worker = threading.Thread(target=lambda: answers.append(node.ask(node.command(mandate))))
    worker.start()
    wait_until(lambda: node.mandates.waiting, "the command")
    node.send(mandate)
    worker.join(60)
    assert (answers, node.wanted) == (["success"], [])


def test_a_copy_that_comes_while_the_first_one_is_still_asked_about_is_obeyed(node: MandatedNode) -> None:
    """A coordinator may answer before the node is done with asking."""
    mandate = node.mandate("ann")
    node.send(mandate)
    frame = signed(encode(node.command(mandate)), "coordinator")
    say = node.reporter.report

    def answered_at_once(*messages: Message, announced: bool = True) -> tuple[Frame, ...]:
        if isinstance(messages[0], ApprovalWanted):
            node.send(signed(mandate, "bob"))
            node.send(frame)
        return say(*messages, announced=announced)

    node.reporter.report = answered_at_once  # type: ignore[method-assign]
    node.send(frame)
    assert [report.outcome for report in node.reports] == ["success"]


def test_more_commands_than_may_wait_ask_at_once(node: MandatedNode) -> None:
    node.wait = 30.0
    node.start()
    mandates = [node.mandate("ann", "bob", rollout=f"r{n}") for n in range(4)]
    commands = [node.command(each, rollout=f"r{n}") for n, each in enumerate(mandates)]
    frames = [signed(encode(command), "coordinator") for command in commands]
    workers = [threading.Thread(target=node.send, args=(frame,)) for frame in frames[:3]]
    for worker in workers:
        worker.start()
    wait_until(lambda: node.mandates.waiting == 3, "the commands")
    node.send(frames[3])
    assert node.wanted == [digest(mandates[3])]
    for each in mandates:
        node.send(each)
    for worker in workers:
        worker.join(60)


def test_what_the_disk_lost_is_asked_for_again(node: MandatedNode) -> None:
    mandate = node.mandate("ann", "bob")
    node.send(mandate)
    (file,) = (node.settings.state / "mandates").iterdir()
    file.unlink()
    command = node.command(mandate)
    assert node.ask(command) == ""
    node.send(mandate)
    assert node.ask(command) == "success"


def test_a_full_outbox_loses_no_question(node: MandatedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploys, "_RETRY_AFTER", 0.01)
    mandate = node.mandate("ann", "bob")
    node.reporter.full = True
    worker = threading.Thread(target=node.ask, args=(node.command(mandate),))
    worker.start()
    worker.join(0.1)
    assert worker.is_alive()
    node.reporter.full = False
    worker.join(60)
    assert node.wanted == [digest(mandate)]


def test_a_mandate_of_ten_thousand_nodes_is_kept_and_its_copies_are_not_read_again(
    node: MandatedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = tuple(NodeName(f"web{n:05}.eu-west-1.example.org") for n in range(9_999))
    mandate = node.mandate("ann", "bob", nodes=(*names, WEB1))
    node.send(mandate)
    node.start()
    assert node.ask(node.command(mandate)) == "success"
    checked: list[object] = []
    monkeypatch.setattr(node.handler._trust, "check", lambda *_, **__: checked.append(1))
    for _ in range(100):
        node.send(mandate)
    assert checked == []


@pytest.mark.parametrize("kind", ["kept", "another node's", "another site's", "ended", "of eve"])
def test_copies_of_any_genuine_mandate_are_dropped_unread(
    node: MandatedNode, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Whoever has seen one can send it again and again, and each may name 10,000 nodes."""
    kinds: dict[str, dict[str, Any]] = {
        "another node's": {"nodes": (WEB2,)},
        "another site's": {"site": SiteName("elsewhere")},
        "ended": {"not_before": node.now - 2 * HOUR, "not_after": node.now - HOUR},
    }
    changes = kinds.get(kind, {})
    many = [node.mandate("eve" if kind == "of eve" else "ann", **{"rollout": f"r{n}", **changes}) for n in range(12)]
    for frame in many:
        node.send(frame)
    checked: list[Frame] = []
    monkeypatch.setattr(node.handler._trust, "check", lambda frame, *_, **__: checked.append(frame))
    for frame in many * 3:
        node.send(frame)
    assert checked == []


def test_a_flood_of_mandates_costs_few_records_and_little_disk(node: MandatedNode) -> None:
    node.mandates.store._most = 5
    mandate = node.mandate("ann", "bob")
    node.send(mandate)
    assert node.ask(node.command(mandate, "prepare")) == "success"
    for n in range(20):
        node.send(node.mandate("eve", rollout=f"e{n}"))
        node.send(node.mandate("cid", rollout=f"c{n}"))
    assert len(node.mandates.store) == 5
    denied = [record for record in node.recorded("rollout.approval") if record.decision == "denied"]
    assert len(denied) == 2, "one, and the count of those since"
    node.start()
    assert node.ask(node.command(mandate, "activate")) == "success", "a running rollout's mandate stays"


def test_the_audit_names_the_mandate_and_who_signed_it(node: MandatedNode) -> None:
    mandate = node.mandate("ann", "bob")
    node.send(mandate)
    node.ask(node.command(mandate))
    (kept,) = node.recorded("rollout.approval")
    assert (kept.decision, kept.reason, kept.target) == ("allowed", "it counts", SHOP)
    assert (kept.details["mandate"], kept.details["nodes"]) == (digest(mandate), "2")
    for action in ("deploy", "deploy.result"):
        (record,) = node.recorded(action)
        assert record.details["mandate"] == digest(mandate)
        assert all(KEYS[who].fingerprint in record.details["approved_by"] for who in ("ann", "bob"))
