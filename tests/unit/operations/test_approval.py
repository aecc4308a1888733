"""What a signature under a mandate is worth is said before it is made, and nothing spoils the signatures of others."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from deploykit.config import load_settings
from deploykit.errors import PolicyRefused, SignatureError
from deploykit.fleet.mandates import HeldMandate
from deploykit.messages import utc_now
from deploykit.operations.approval import ApprovalDesk
from deploykit.operations.mandatefiles import blobs_of, mandate_frame, with_blobs
from deploykit.operations.proposals import change_mandate, read_proposal
from deploykit.operations.propose import approved, plan_approved, require_no_mandate
from deploykit.trust.keyfiles import trust
from deploykit.trust.keyformat import SK_ED25519
from deploykit.trust.mandate import Requirement
from deploykit.trust.signature import HEADER, SigningKey
from deploykit.trust.sshsig import encode_header
from tests.support.approving import ApprovalWorld
from tests.support.certificates import CertificateMaker
from tests.support.securitykeys import SoftwarePasskey, SoftwareSecurityKey


@pytest.fixture
def world(tmp_path: Path) -> ApprovalWorld:
    return ApprovalWorld(tmp_path)


def signed(world: ApprovalWorld, *names: str, held: HeldMandate | None = None) -> HeldMandate:
    desk = ApprovalDesk.from_settings(world.settings)
    made = held or world.mandate()
    for name in names:
        made = desk.signed(made, world.keys[name])
    return made


def notes(world: ApprovalWorld, held: HeldMandate, name: str) -> tuple[str, ...]:
    desk, now = ApprovalDesk.from_settings(world.settings), utc_now()
    return desk.notes_on_key(desk.sheet(held, now), world.keys[name], now)


def test_who_may_approve_hears_nothing_and_the_others_why_not(world: ApprovalWorld) -> None:
    held = world.mandate()
    assert notes(world, held, "ann") == ()
    assert "no grant for rollout.approved" in notes(world, held, "eve")[0]
    assert "no grant for rollout.approved" in notes(world, held, "desk")[0]
    assert "not among the allowed signers" in notes(world, held, "mallory")[0]


def test_a_second_key_of_one_person_is_no_second_person(world: ApprovalWorld) -> None:
    trust(world.signers, "ann", world.keys["mallory"].public_blob)
    held = signed(world, "ann")
    assert "counts as no further person" in notes(world, held, "mallory")[0]
    assert notes(world, held, "bob") == ()
    desk = ApprovalDesk.from_settings(world.settings)
    assert "of 1" in desk.judge(signed(world, "mallory", held=held), utc_now())
    assert desk.judge(signed(world, "bob", held=held), utc_now()) == ""


def test_a_site_that_asks_for_a_person_wants_a_key_that_shows_one(tmp_path: Path) -> None:
    world = ApprovalWorld(tmp_path, site='require = "person"')
    assert "a ssh-ed25519 key does not" in notes(world, world.mandate(), "ann")[0]
    touched = SoftwareSecurityKey(SK_ED25519)
    trust(world.signers, "ann", touched.public_blob)
    desk, now = ApprovalDesk.from_settings(world.settings), utc_now()
    assert desk.notes_on_key(desk.sheet(world.mandate(), now), touched, now) == ()
    sheet = desk.sheet(desk.signed(world.mandate(), touched), now)
    assert sheet.missing == ""
    assert [(each.key_type, each.signer is not None and each.signer.present) for each in sheet.signatures] == [
        (SK_ED25519, True)
    ]


def test_a_passkey_of_a_site_that_no_setting_names_counts_for_nothing(world: ApprovalWorld) -> None:
    passkey = SoftwarePasskey()
    trust(world.signers, "ann", passkey.public_blob)
    desk, now = ApprovalDesk.from_settings(world.settings), utc_now()
    assert "trust.rp_ids" in desk.notes_on_key(desk.sheet(world.mandate(), now), passkey, now)[0]


def test_without_allowed_signers_nobody_pretends_to_know(world: ApprovalWorld) -> None:
    desk, now = ApprovalDesk.from_settings(None), utc_now()
    held = signed(world, "ann")
    sheet = desk.sheet(held, now)
    assert [(each.signer, each.problem, each.fits) for each in sheet.signatures] == [
        (None, "which keys count is not known here", True)
    ]
    assert "not known here" in desk.notes_on_key(sheet, world.keys["bob"], now)[0]


def flipped(held: HeldMandate) -> HeldMandate:
    (blob,) = blobs_of(held)
    value = encode_header(blob[:-1] + bytes([blob[-1] ^ 1]))
    return HeldMandate.of_frame(mandate_frame(held.frame.body, value))


def test_a_signature_that_does_not_fit_is_never_added(world: ApprovalWorld) -> None:
    desk, now = ApprovalDesk.from_settings(world.settings), utc_now()
    bad = flipped(signed(world, "ann"))
    with pytest.raises(SignatureError, match="does not fit these bytes"):
        desk.fitting(bad)
    assert "does not fit" in desk.sheet(bad, now).signatures[0].problem

    class Liar:
        """Signs other bytes than it is given."""

        public_blob = world.keys["bob"].public_blob
        fingerprint = world.keys["bob"].fingerprint

        def sign_body(self, body: bytes) -> bytes:
            return world.keys["bob"].sign_body(body + b" ")

    with pytest.raises(SignatureError):
        desk.signed(world.mandate(), Liar())


def test_only_signatures_that_count_go_out(world: ApprovalWorld) -> None:
    """One of a stranger would spoil the others: nodes believe a message only where all its signatures are good."""
    held = signed(world, "mallory", "ann", "eve", "bob")
    done = approved(world.planned(), held)
    assert done.mandate is not None
    assert set(blobs_of(done.mandate)) == set(blobs_of(signed(world, "ann", "bob", held=with_blobs(held, ()))))
    assert [note.partition(" is left out")[0] for note in done.notes] == [
        f"the signature by key {world.keys[name].fingerprint}" for name in ("mallory", "eve")
    ]
    assert done.mandate.digest == held.digest
    assert HEADER in done.mandate.frame.headers


@pytest.mark.parametrize("names", [(), ("ann",), ("ann", "eve"), ("ann", "mallory")])
def test_with_too_few_signatures_nothing_is_started(world: ApprovalWorld, names: tuple[str, ...]) -> None:
    with pytest.raises(PolicyRefused, match="not approved"):
        approved(world.planned(), signed(world, *names))


def test_a_desk_that_does_not_know_the_site_wants_one_signature_that_counts(tmp_path: Path) -> None:
    world = ApprovalWorld(tmp_path, site=None)
    assert approved(world.planned(), signed(world, "ann")).mandate is not None
    for names in ((), ("eve",)):
        with pytest.raises(PolicyRefused, match="not approved"):
            approved(world.planned(), signed(world, *names))


def test_what_is_over_or_begins_later_is_not_started(world: ApprovalWorld) -> None:
    path = world.over().path
    with pytest.raises(PolicyRefused, match="ended at"):
        plan_approved(world.settings, path)
    later = world.mandate(not_before=utc_now().replace(year=utc_now().year + 1))
    with pytest.raises(PolicyRefused, match="begins at"):
        approved(world.planned(), signed(world, "ann", "bob", held=later))


def test_what_would_be_refused_for_want_of_a_mandate_is_not_sent(world: ApprovalWorld, tmp_path: Path) -> None:
    planned = world.planned()
    with pytest.raises(PolicyRefused, match="2 people's signatures") as caught:
        require_no_mandate(planned)
    assert "--propose" in caught.value.remedy
    (tmp_path / "other").mkdir()
    require_no_mandate(ApprovalWorld(tmp_path / "other", site=None).planned())


def test_what_nodes_say_counts_on_a_machine_that_does_not_know_the_site(tmp_path: Path) -> None:
    world = ApprovalWorld(tmp_path, site=None)
    planned = world.planned(asks=Requirement(signatures=2))
    with pytest.raises(PolicyRefused, match="2 people's signatures"):
        require_no_mandate(planned)
    path = world.proposed(planned).path
    assert read_proposal(path).head.asks == Requirement(signatures=2)
    change_mandate(path, lambda held: signed(world, "ann", held=held))
    with pytest.raises(PolicyRefused, match="2 different people"):
        plan_approved(world.settings, path)
    change_mandate(path, lambda held: signed(world, "bob", held=held))
    assert plan_approved(world.settings, path).mandate is not None


def test_what_nodes_say_makes_no_site_ask_for_less(world: ApprovalWorld) -> None:
    planned = world.planned(asks=Requirement(require="person"))
    assert world.proposed(planned).head.asks == Requirement(require="person", signatures=2)
    with pytest.raises(PolicyRefused, match="2 people's signatures"):
        require_no_mandate(planned)


def test_a_retry_is_another_rollout_and_needs_a_mandate_of_its_own(tmp_path: Path) -> None:
    planned = ApprovalWorld(tmp_path, site=None).planned()
    with pytest.raises(PolicyRefused, match="a mandate is for one rollout id"):
        require_no_mandate(attrs.evolve(planned, retried="shop-0"))


def test_to_leave_out_builds_one_who_signs_must_be_allowed(world: ApprovalWorld) -> None:
    planned = world.planned(without_build=True)
    desk, now = ApprovalDesk.from_settings(world.settings), utc_now()
    held = world.proposed(planned).mandate
    for name in ("ann", "bob"):
        assert desk.notes_on_key(desk.sheet(held, now), world.keys[name], now) == ()
        held = desk.signed(held, world.keys[name])
    assert [each.problem for each in desk.sheet(held, now).signatures] == ["", ""]
    assert "leaves out builds" in desk.sheet(held, now).missing


def test_an_override_of_a_lock_that_nobody_who_signs_may_give_is_named(world: ApprovalWorld) -> None:
    desk, now = ApprovalDesk.from_settings(world.settings), utc_now()
    held = desk.signed(world.proposed(world.planned(override_lock="fire")).mandate, world.keys["ann"])
    assert "lock.override" in desk.sheet(held, now).warning
    assert desk.sheet(signed(world, "ann"), now).warning == ""
    world.config.write_text(world.config.read_text().replace("rollout.approved", 'rollout.approved", "lock.override'))
    granted = ApprovalDesk.from_settings(load_settings(world.config))
    assert granted.sheet(held, now).warning == ""


def test_a_certificate_counts_by_its_authority_and_the_key_in_it_does_not(world: ApprovalWorld) -> None:
    authority = SigningKey.generate()
    key = SigningKey.generate()
    with world.signers.open("a") as file:
        file.write(f"ann cert-authority {authority.public_openssh}\n")
    made = CertificateMaker(key=key.public_blob, authority=authority).make()
    certified = key.with_certificate(made)
    desk, now = ApprovalDesk.from_settings(world.settings), utc_now()
    held = world.mandate()
    assert desk.notes_on_key(desk.sheet(held, now), certified, now) == ()
    assert "not among the allowed signers" in desk.notes_on_key(desk.sheet(held, now), key, now)[0]
    (shown,) = desk.sheet(desk.signed(held, certified), now).signatures
    assert shown.problem == ""
    assert shown.signer is not None
    assert shown.signer.certificate
    assert "counts as no further person" in desk.notes_on_key(desk.sheet(signed(world, "ann"), now), certified, now)[0]
