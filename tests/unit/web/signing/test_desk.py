"""The desk of signing keys: who may enrol, what is kept, what is refused and written into the audit."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from deploykit.errors import ActionRefused, KeyFileError
from deploykit.settings.web import WebSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.keyformat import SK_ECDSA, PublicKey, encode_key, fingerprint, public_line
from deploykit.web.actions.auditing import ActionAudit
from deploykit.web.ledger.ledger import Ledger
from deploykit.web.ledger.passkeys import KeptPasskey
from deploykit.web.projection.activityviews import AuditView
from deploykit.web.signing.desk import SigningDesk
from deploykit.web.signing.offers import MOST_LINK, signing_offer, url_base64
from deploykit.web.signing.places import signing_place
from deploykit.web.viewer import RoleGrant, Viewer
from tests.support.ledgers import ledger_in
from tests.support.loginpasskeys import SoftwareDevice

URL = "https://deploy.example.org"
ANN = Viewer(name="ann", grants=(RoleGrant(sites="shop", role="stage"),))
BOB = Viewer(name="bob", grants=(RoleGrant(sites="*", role="admin"),))
EVE = Viewer(name="eve", grants=(RoleGrant(sites="*", role="look"),))


def registration(device: SoftwareDevice, challenge: str) -> str:
    """A device's answer to a challenge."""
    text = base64.urlsafe_b64encode(challenge.encode()).decode().rstrip("=")
    return device.register({"user": {"id": ""}, "challenge": text})


def blob_of(device: SoftwareDevice) -> bytes:
    """The public key of a device, as OpenSSH writes it."""
    return encode_key(PublicKey(key_type=SK_ECDSA, point=device.point, application=device.rp_id))


@attrs.frozen(kw_only=True)
class Desk:
    """A desk, its ledger, and what it wrote into the audit."""

    desk: SigningDesk
    ledger: Ledger
    notes: list[AuditView]

    def enrolled(self, viewer: Viewer = ANN, device: SoftwareDevice | None = None) -> KeptPasskey:
        """Enrol a key for shop."""
        begun = self.desk.begin(viewer, "shop", "", URL)
        return self.desk.finish(viewer, registration(device or SoftwareDevice(), begun.challenge), URL)


MakeDesk = Callable[..., Desk]


@pytest.fixture
def make(tmp_path: Path) -> MakeDesk:
    def make_desk(signers: Callable[[], AllowedSigners] | None = None) -> Desk:
        ledger, notes = ledger_in(tmp_path), list[AuditView]()
        settings = WebSettings(url=URL)
        desk = SigningDesk(settings, ledger.passkeys, ledger.once, ActionAudit(notes.append), signers=signers)
        return Desk(desk=desk, ledger=ledger, notes=notes)

    return make_desk


def test_a_key_is_kept_with_its_line_and_for_signing_alone(make: MakeDesk) -> None:
    world, device = make(), SoftwareDevice()
    kept = world.enrolled(device=device)
    assert (kept.purpose, kept.name, kept.label, kept.rp_id) == (
        "signing",
        "ann",
        "SIGN shop releases (ann)",
        "deploy.example.org",
    )
    assert kept.line == f'ann namespaces="deploykit" {public_line(blob_of(device))} SIGN shop releases (ann)'
    assert world.ledger.passkeys.find(kept.credential, "login") is None
    assert [(note.who, note.decision) for note in world.notes] == [("ann", "done")]
    assert fingerprint(blob_of(device)) in world.notes[0].detail


def test_who_only_looks_enrols_nothing(make: MakeDesk) -> None:
    world = make()
    with pytest.raises(ActionRefused, match="the role stage is needed") as caught:
        world.desk.begin(EVE, "shop", "", URL)
    assert caught.value.status == 403
    assert [(note.who, note.decision) for note in world.notes] == [("eve", "refused")]


def test_an_answer_is_good_once_and_for_whoever_asked(make: MakeDesk) -> None:
    world = make()
    begun = world.desk.begin(ANN, "shop", "", URL)
    answer = registration(SoftwareDevice(), begun.challenge)
    with pytest.raises(ActionRefused, match="no question of ours"):
        world.desk.finish(BOB, answer, URL)
    with pytest.raises(ActionRefused, match="no question of ours"):
        world.desk.finish(ANN, answer, URL)  # what somebody else tried is over, too
    again = registration(SoftwareDevice(), world.desk.begin(ANN, "shop", "", URL).challenge)
    world.desk.finish(ANN, again, URL)
    with pytest.raises(ActionRefused, match="no question of ours"):
        world.desk.finish(ANN, again, URL)


@pytest.mark.parametrize(
    "device",
    [
        SoftwareDevice(origin="https://evil.example.org"),
        SoftwareDevice(rp_id="example.org"),
        SoftwareDevice(verified=False),
    ],
    ids=["another origin", "another relying party", "nobody verified"],
)
def test_what_was_made_elsewhere_or_by_nobody_is_not_kept(make: MakeDesk, device: SoftwareDevice) -> None:
    world = make()
    with pytest.raises(ActionRefused, match="does not count"):
        world.enrolled(device=device)
    assert world.ledger.passkeys.list() == ()
    assert [note.decision for note in world.notes] == ["refused"]


def test_a_key_that_logs_in_signs_nothing(make: MakeDesk) -> None:
    world, device = make(), SoftwareDevice()
    kept = world.enrolled(device=device)
    world.ledger.passkeys.remove(kept.credential, "ann")
    world.ledger.passkeys.add(attrs.evolve(kept, purpose="login", credential="b3RoZXI"))
    with pytest.raises(ActionRefused, match="this passkey logs in"):
        world.enrolled(device=device)


def test_a_key_that_logs_in_signs_nothing_however_it_is_written(make: MakeDesk) -> None:
    world, device = make(), SoftwareDevice()
    x, y = device.point[1:33], device.point[33:]
    cose = b"\xa5\x22\x58\x20" + y + b"\x21\x58\x20" + x + b"\x20\x01\x03\x26\x01\x02"
    world.ledger.passkeys.add(KeptPasskey(credential="b3RoZXI", purpose="login", name="ann", public_key=cose))
    with pytest.raises(ActionRefused, match="this passkey logs in"):
        world.enrolled(device=device)


def test_a_key_is_enrolled_once(make: MakeDesk) -> None:
    world, device = make(), SoftwareDevice()
    world.enrolled(device=device)
    with pytest.raises(ActionRefused, match="this passkey signs already"):
        world.enrolled(BOB, device)


def test_a_key_of_somebody_else_is_neither_shown_nor_removed(make: MakeDesk) -> None:
    world = make()
    kept = world.enrolled()
    assert world.desk.key(BOB, kept.credential, URL) is None
    assert world.desk.keys(BOB, URL) == ()
    with pytest.raises(ActionRefused):
        world.desk.remove(BOB, kept.credential)
    assert (world.notes[-1].who, world.notes[-1].decision) == ("bob", "refused")
    assert [key.kept.credential for key in world.desk.keys(ANN, URL)] == [kept.credential]
    world.desk.remove(ANN, kept.credential)
    assert world.desk.keys(ANN, URL) == ()


def test_a_key_that_logs_in_is_not_removed_here(make: MakeDesk) -> None:
    world = make()
    kept = attrs.evolve(world.enrolled(), purpose="login", credential="b3RoZXI")
    world.ledger.passkeys.add(kept)
    with pytest.raises(ActionRefused):
        world.desk.remove(ANN, kept.credential)


def test_the_list_says_what_this_machines_files_say(make: MakeDesk) -> None:
    lines: list[str] = []
    world = make(lambda: AllowedSigners.parse("\n".join(lines)))
    line = world.enrolled().line
    assert [key.standing for key in world.desk.keys(ANN, URL)] == ["unknown"]
    lines.append(line)
    assert [key.standing for key in world.desk.keys(ANN, URL)] == ["trusted"]

    def unreadable() -> AllowedSigners:
        raise KeyFileError("it cannot be read")

    world = make(unreadable)
    assert [key.standing for key in world.desk.keys(ANN, URL)] == ["unread"]


def test_an_offer_has_only_the_keys_of_the_place(make: MakeDesk) -> None:
    world = make()
    kept = world.enrolled()
    body = base64.b64encode(b"{}").decode()
    here, elsewhere = (
        signing_place(WebSettings(url=URL, sign_origin=origin), "") for origin in ("", "https://sign.example.org")
    )
    offer = signing_offer(here, "r-1", body, [kept])
    assert (offer.mode, offer.enrolled, offer.link) == ("here", True, "")
    other = signing_offer(elsewhere, "r-1", body, [kept])
    assert (other.mode, other.enrolled, other.keys, other.link) == ("elsewhere", False, "", "")
    moved = signing_offer(elsewhere, "r-1", body, [attrs.evolve(kept, rp_id="sign.example.org")])
    assert moved.link.startswith(f"https://sign.example.org/#mandate={url_base64(body)}&keys=")


def test_a_link_that_no_browser_takes_is_not_offered(make: MakeDesk) -> None:
    kept = attrs.evolve(make().enrolled(), rp_id="sign.example.org")
    place = signing_place(WebSettings(url=URL, sign_origin="https://sign.example.org"), "")
    offer = signing_offer(place, "r-1", "A" * MOST_LINK, [kept])
    assert offer.link == ""
    assert "command line" in offer.problem


def test_a_damaged_entry_does_not_keep_the_others_from_signing(make: MakeDesk) -> None:
    kept = make().enrolled()
    place = signing_place(WebSettings(url=URL), "")
    damaged = [attrs.evolve(kept, line="x"), attrs.evolve(kept, credential="\x00")]
    assert signing_offer(place, "r-1", "", [*damaged, kept]).keys == signing_offer(place, "r-1", "", [kept]).keys
