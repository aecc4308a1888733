"""`deploykit approve` shows what the bytes say, warns, asks, signs; and what else people do with a proposal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import click
import pytest
from click.testing import CliRunner, Result

from deploykit.cli.approve import approve
from deploykit.cli.rollout import rollout
from deploykit.errors import DeploykitError, KeyFileError, PolicyRefused, SignatureError, UsageError
from deploykit.fleet.mandates import HeldMandate
from deploykit.messages import utc_now
from deploykit.operations.mandatefiles import blobs_of, mandate_text, read_mandate_file, write_mandate_file
from deploykit.operations.proposals import Proposal, change_mandate, read_proposal
from deploykit.trust.keyfiles import trust
from deploykit.trust.keyformat import SK_ED25519
from deploykit.trust.signature import add_signature
from deploykit.wire import encode
from tests.support.approving import ApprovalWorld
from tests.support.securitykeys import SoftwareSecurityKey


@pytest.fixture
def world(tmp_path: Path) -> ApprovalWorld:
    return ApprovalWorld(tmp_path)


def invoke(world: ApprovalWorld, command: click.Command, *words: str | Path) -> Result:
    result = CliRunner().invoke(command, [*map(str, words), "--config", str(world.config)])
    if result.exception and not isinstance(result.exception, DeploykitError | SystemExit):
        raise result.exception
    return result


def sign(world: ApprovalWorld, what: str | Path, name: str, *more: str | Path) -> str:
    result = invoke(world, approve, what, "--key", world.root / name, "--yes", *more)
    if isinstance(result.exception, DeploykitError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def shown(world: ApprovalWorld, what: str | Path, *more: str) -> str:
    result = invoke(world, approve, what, "--no-sign", *more)
    assert result.exit_code == 0, result.output
    return result.output


def test_it_shows_what_the_bytes_say(world: ApprovalWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    made = world.proposed(world.planned(40))
    text = shown(world, "shop-1")
    for line in (
        "rollout    shop-1",
        "site       shop",
        "ref        refs/tags/v1",
        f"commit     {'ab' * 20}",
        "nodes      40 nodes: web[1-40]",
        "phases     prepare, activate",
        "back       each node may be told to go back to its own previous release",
        "says       requested by ada",
        f"digest     {made.mandate.digest}",
        "signed     by nobody yet",
        "site asks  2 people's signatures: nobody has signed it",
    ):
        assert line in text
    until = made.mandate.message.not_after
    assert f"until      {until:%Y-%m-%d %H:%M:%SZ} (" in text
    assert " here)" in text
    assert "BUILDS" not in text
    assert "LOCK" not in text


def test_what_is_dangerous_is_loud(world: ApprovalWorld) -> None:
    world.proposed(world.planned(without_build=True, override_lock="the shop burns"))
    text = shown(world, "shop-1")
    assert "BUILDS     MAY BE LEFT OUT" in text
    assert "LOCK       IS OVERRIDDEN, for this reason: the shop burns" in text


def test_hostile_text_is_escaped_and_hides_nothing(world: ApprovalWorld) -> None:
    message = attrs.evolve(
        world.mandate().message,
        rollout="sh\N{CYRILLIC SMALL LETTER O}p-1",
        requested_by="ada\x1b[2J\n\nsigned     by everybody" + "x" * 5000,
        reason="\u202egnihton\r",
    )
    write_mandate_file(world.root / "m", HeldMandate.of_frame(encode(message)))
    text = shown(world, world.root / "m")
    assert text.replace("\n", "").isprintable()
    assert r"written 'sh\u043ep-1'" in text
    assert not any(line.startswith("signed     by everybody") for line in text.splitlines())
    assert len(text) < 3000
    assert "signed     by nobody yet" in text


def test_two_people_sign_one_after_the_other(world: ApprovalWorld) -> None:
    path = world.proposed().path
    text = sign(world, "shop-1", "ann")
    assert f"signed with key {world.keys['ann'].fingerprint}; it has 1 signature" in text
    assert "still missing" in text
    text = sign(world, "shop-1", "bob")
    assert "it has 2 signatures" in text
    assert "still missing" not in text
    assert "deploykit rollout start shop-1" in text
    text = shown(world, "shop-1")
    assert f"ann  {world.keys['ann'].fingerprint} (ssh-ed25519)" in text
    assert "2 people's signatures: complete" in text
    assert len(blobs_of(read_proposal(path).mandate)) == 2


def test_on_machines_of_their_own_by_files(world: ApprovalWorld, tmp_path: Path) -> None:
    path = world.proposed().path
    carried = tmp_path / "shop.mandate"
    shown(world, "shop-1", "--output", str(carried))
    for name in ("ann", "bob"):
        sign(world, carried, name, "--output", tmp_path / f"{name}.mandate")
    assert blobs_of(read_mandate_file(carried)) == blobs_of(read_proposal(path).mandate) == ()
    shown(world, "shop-1", "--add", str(tmp_path / "ann.mandate"), "--add", str(tmp_path / "bob.mandate"))
    assert len(blobs_of(read_proposal(path).mandate)) == 2


def test_a_file_is_signed_in_its_place_where_there_are_no_settings(
    world: ApprovalWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPLOYKIT_CONFIG", str(tmp_path / "none.toml"))
    carried = tmp_path / "shop.mandate"
    write_mandate_file(carried, world.mandate())
    result = CliRunner().invoke(approve, [str(carried), "--key", str(tmp_path / "ann"), "--yes"])
    assert result.exit_code == 0, result.output
    assert "which keys count is not known here" in result.output
    assert len(blobs_of(read_mandate_file(carried))) == 1


def test_signatures_over_other_bytes_are_not_taken_over(world: ApprovalWorld, tmp_path: Path) -> None:
    path = world.proposed().path
    other = world.mandate(reason="another")
    write_mandate_file(tmp_path / "m", HeldMandate.of_frame(add_signature(other.frame, world.keys["ann"])))
    assert isinstance(invoke(world, approve, "shop-1", "--add", tmp_path / "m").exception, PolicyRefused)
    value = json.loads(mandate_text(HeldMandate.of_frame(add_signature(other.frame, world.keys["ann"]))))
    mine = json.loads(mandate_text(read_proposal(path).mandate))
    (tmp_path / "m").write_text(json.dumps({**mine, "signatures": value["signatures"]}))
    assert isinstance(invoke(world, approve, "shop-1", "--add", tmp_path / "m").exception, SignatureError)
    assert blobs_of(read_proposal(path).mandate) == ()


@pytest.mark.parametrize("name", ["eve", "mallory", "desk"])
def test_a_key_that_would_count_for_nothing_signs_nothing_unasked(world: ApprovalWorld, name: str) -> None:
    path = world.proposed().path
    with pytest.raises(PolicyRefused, match=world.keys[name].fingerprint[:20].replace("+", r"\+")):
        sign(world, "shop-1", name)
    assert blobs_of(read_proposal(path).mandate) == ()


def test_without_a_person_and_without_yes_nothing_is_signed(world: ApprovalWorld) -> None:
    path = world.proposed().path
    result = invoke(world, approve, "shop-1", "--key", world.root / "ann")
    assert isinstance(result.exception, UsageError)
    assert blobs_of(read_proposal(path).mandate) == ()


def test_what_is_over_is_shown_and_not_signed(world: ApprovalWorld) -> None:
    world.over()
    result = invoke(world, approve, "shop-1", "--key", world.root / "ann", "--yes")
    assert isinstance(result.exception, PolicyRefused)
    assert ", OVER" in result.output
    assert "proposed, over" in invoke(world, rollout, "list").output
    assert isinstance(invoke(world, rollout, "start", "shop-1").exception, PolicyRefused)


def test_a_body_with_fields_that_we_do_not_know_is_shown_and_not_signed(world: ApprovalWorld, tmp_path: Path) -> None:
    message = attrs.evolve(world.mandate().message, extra={"also": "bank\x1b[0m"})
    write_mandate_file(tmp_path / "m", HeldMandate.of_frame(encode(message)))
    result = invoke(world, approve, tmp_path / "m", "--key", world.root / "ann", "--yes")
    assert isinstance(result.exception, PolicyRefused)
    assert r"UNKNOWN    also: bank\x1b[0m" in result.output
    assert blobs_of(read_mandate_file(tmp_path / "m")) == ()


def test_a_proposal_that_changes_while_it_is_shown_is_not_signed(
    world: ApprovalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = world.proposed()
    from deploykit.operations import proposals

    def swapped(path: Path, change: Any) -> Proposal:
        other = world.mandate(reason="another")
        change_mandate(path, lambda held: other)
        return change_mandate(path, change)

    monkeypatch.setattr(proposals, "change_mandate", swapped)
    result = invoke(world, approve, "shop-1", "--key", world.root / "ann", "--yes")
    assert isinstance(result.exception, PolicyRefused)
    assert "another wording" in result.exception.problem
    assert blobs_of(read_proposal(made.path).mandate) == ()


def test_a_script_reads_it(world: ApprovalWorld) -> None:
    world.proposed()
    found = json.loads(sign(world, "shop-1", "ann", "--json"))
    assert found["signed_by"] == world.keys["ann"].fingerprint
    assert (found["nodes"], found["phases"]) == (["web1", "web2", "web3"], ["prepare", "activate"])
    assert found["signatures"][0]["principals"] == [["ann"]]
    (listed,) = json.loads(invoke(world, rollout, "list", "--json").output)
    assert (listed["state"], listed["signatures"]) == ("proposed", 1)


def test_a_proposal_is_listed_shown_and_withdrawn(world: ApprovalWorld) -> None:
    world.proposed()
    assert "proposed, signed by 0" in invoke(world, rollout, "list").output
    text = invoke(world, rollout, "show", "shop").output
    assert invoke(world, rollout, "show", "last").output == text  # nothing was begun here
    assert "proposed; it has not begun" in text
    assert "deploykit rollout start shop-1" in text
    for command in ("pause", "promote", "resume"):
        error = invoke(world, rollout, command, "shop-1").exception
        assert isinstance(error, UsageError)
        assert "has not begun" in error.problem
    assert "nothing was sent" in invoke(world, rollout, "abort", "shop-1").output
    assert isinstance(invoke(world, rollout, "start", "shop-1").exception, UsageError)


def test_what_was_started_before_is_not_called_unknown(world: ApprovalWorld) -> None:
    path = world.proposed().path
    (path.parent / "journal.jsonl").touch()
    error = invoke(world, rollout, "start", "shop-1").exception
    assert isinstance(error, UsageError)
    assert error.problem == "rollout shop-1 was started before"
    error = invoke(world, rollout, "start", "last").exception
    assert isinstance(error, UsageError)
    assert error.problem == "no proposal waits to be started"


def test_what_is_not_approved_is_not_started(world: ApprovalWorld) -> None:
    world.proposed()
    sign(world, "shop-1", "ann")
    error = invoke(world, rollout, "start", "shop-1").exception
    assert isinstance(error, PolicyRefused)
    assert "deploykit approve shop-1" in error.remedy


def test_what_is_no_proposal_is_named(world: ApprovalWorld, tmp_path: Path) -> None:
    assert isinstance(invoke(world, approve, "nothing").exception, UsageError)
    assert isinstance(invoke(world, approve, tmp_path / "none").exception, UsageError)
    world.proposed()
    assert isinstance(invoke(world, approve, "last", "--key", tmp_path / "no-key", "--yes").exception, KeyFileError)


def test_the_mandate_of_a_signed_proposal_stays_the_same_bytes(world: ApprovalWorld) -> None:
    made = world.proposed()
    sign(world, "shop-1", "ann")
    assert read_proposal(made.path).mandate.frame.body == made.mandate.frame.body
    assert read_proposal(made.path).mandate.message.not_after > utc_now()


def test_a_signature_that_turns_out_to_show_too_little_is_not_written(
    world: ApprovalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kind of a key says that it shows a person; whether it did, only its signature says."""
    from deploykit.operations.keychoice import KeyChoice

    untouched = SoftwareSecurityKey(SK_ED25519, presence=False)
    trust(world.signers, "ann", untouched.public_blob)
    monkeypatch.setattr(KeyChoice, "load", lambda self, settings: untouched)
    path = world.proposed().path
    with pytest.raises(PolicyRefused, match="does not show that somebody touched the key"):
        sign(world, "shop-1", "ann")
    assert blobs_of(read_proposal(path).mandate) == ()
