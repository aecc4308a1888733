"""The login by a passkey: invitations, registrations, logins, and answers that do not count."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.errors import KeyFileError, LedgerError, UsageError
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.keyformat import SK_ECDSA, PublicKey, encode_key, public_line
from deploykit.web.ledger.passkeys import KeptPasskey
from deploykit.web.login.passkeys import LoginPasskeys
from tests.support.loginpasskeys import SoftwareDevice
from tests.support.loginworld import access, form
from tests.support.passkeyworld import SESSION, URL, PasskeyWorld, make_invitation, options, passkey_world


@pytest.fixture
def world(tmp_path: Path) -> PasskeyWorld:
    return passkey_world(tmp_path)


def said(answer: object) -> str:
    """Return the problem in an answer that let nobody in."""
    assert answer.status in (403, 404, 409), answer.text  # type: ignore[attr-defined]  # of `Asked`
    assert answer.cookies == ()  # type: ignore[attr-defined]
    return str(answer.json()["problem"])  # type: ignore[attr-defined]


# -- invitations -------------------------------------------------------------------------------------------------------


def test_an_invitation_makes_a_passkey_and_logs_in(world: PasskeyWorld) -> None:
    device = SoftwareDevice()
    answer = world.accept(device, world.invite())
    assert answer.json() == {"next": "/"}
    cookie = answer.cookies[0].partition(";")[0]
    assert world.console.asker.get("/", {"cookie": cookie}).text.startswith("ann *=look ")
    assert [note.action for note in world.console.notes] == ["passkey", "login"]
    assert world.log_in(device, "/sites/shop").json() == {"next": "/sites/shop"}


def test_an_invitation_is_looked_at_often_and_used_once(world: PasskeyWorld) -> None:
    path = world.invite()
    for _ in range(2):
        page = world.console.asker.get(path)
        assert page.status == 200
        assert "Welcome, <bdi>ann</bdi>" in page.text
    assert world.accept(SoftwareDevice(), path).status == 200
    assert world.console.asker.get(path).status == 404
    assert "was used or is over" in said(world.accept(SoftwareDevice(), path))


def test_two_who_use_an_invitation_at_once_are_one(world: PasskeyWorld) -> None:
    path = world.invite()
    devices = [SoftwareDevice(), SoftwareDevice()]
    begun = [world.post(path, step="begin") for _ in devices]
    answers = [
        world.post(path, step="finish", id=one.json()["id"], label="x", answer=device.register(options(one)))
        for one, device in zip(begun, devices, strict=True)
    ]
    assert [one.status for one in answers] == [200, 403]
    assert len(world.console.ledger.passkeys.list("ann")) == 1


def test_an_invitation_is_over_after_a_day(world: PasskeyWorld) -> None:
    path = world.invite()
    world.console.clock.now += 24 * 3600 + 1
    assert world.console.asker.get(path).status == 404


@pytest.mark.parametrize("path", ["/invite/x", "/invite/" + "A" * 43, "/invite/%0a"])
def test_an_invitation_that_never_was_is_none(world: PasskeyWorld, path: str) -> None:
    assert world.console.asker.get(path).status == 404
    assert (world.console.notes[-1].action, world.console.notes[-1].decision) == ("invitation", "refused")
    assert said(world.post(path, step="begin"))


def test_guessing_invitations_is_slow(world: PasskeyWorld) -> None:
    found = [world.console.asker.get(f"/invite/{number}").status for number in range(40)]
    assert (found[0], found[-1]) == (404, 429)


def test_an_invitation_counts_only_while_passkeys_do(tmp_path: Path) -> None:
    world = passkey_world(tmp_path, mode="password", passkeys=False)
    assert world.console.asker.get(world.invite()).status == 404
    assert world.console.asker.get("/login/passkey").status == 303


def test_another_site_cannot_use_an_invitation(world: PasskeyWorld) -> None:
    path = world.invite()
    headers = {"sec-fetch-site": "cross-site"}
    assert world.console.asker.post(path, form(step="begin"), headers).status == 403
    assert "POST '/invite/...' from another page" in world.console.notes[-1].detail, "the code is good still"


def test_the_code_of_an_invitation_is_in_no_log(
    world: PasskeyWorld, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = world.invite()

    errors: list[Exception] = [LedgerError("it is away"), RuntimeError("a mistake")]

    def away(*_: object) -> str:
        raise errors.pop()

    monkeypatch.setattr(LoginPasskeys, "invited", away)
    while errors:
        assert world.console.asker.get(path).status in (500, 503)
    assert "/invite/..." in caplog.text
    assert path not in caplog.text


# -- what browsers are asked for ---------------------------------------------------------------------------------------


def test_what_is_asked_of_a_device(world: PasskeyWorld) -> None:
    asked = options(world.post(world.invite(), step="begin"))
    assert asked["rp"]["id"] == "deploy.example.org"
    assert asked["user"]["displayName"] == "LOG IN (ann)"
    assert asked["authenticatorSelection"]["userVerification"] == "required"
    assert asked["authenticatorSelection"]["residentKey"] == "required"
    login = options(world.console.asker.get("/login/passkey"))
    assert login["userVerification"] == "required"
    assert login.get("allowCredentials", []) == [], "nobody learns who has passkeys"


def test_each_step_has_a_challenge_of_its_own(world: PasskeyWorld) -> None:
    made = {options(world.console.asker.get("/login/passkey"))["challenge"] for _ in range(3)}
    assert len(made) == 3
    assert min(map(len, made)) == 43


# -- answers that do not count -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"verified": False},
        {"origin": "https://evil.example"},
        {"rp_id": "evil.example"},
        {"origin": "http://deploy.example.org"},
    ],
)
def test_a_registration_that_does_not_count(world: PasskeyWorld, wrong: dict[str, Any]) -> None:
    path = world.invite()
    assert "does not count" in said(world.accept(attrs.evolve(SoftwareDevice(), **wrong), path))
    assert world.console.asker.get(path).status == 200, "the invitation is not used up by it"


@pytest.mark.parametrize(
    "wrong",
    [{"verified": False}, {"origin": "https://evil.example"}, {"rp_id": "evil.example"}, {"handle": b"another"}],
)
def test_a_login_that_does_not_count(world: PasskeyWorld, wrong: dict[str, Any]) -> None:
    device = world.known()
    assert said(world.log_in(attrs.evolve(device, **wrong)))
    assert world.console.notes[-1].decision == "refused"


def test_a_signature_of_another_key_does_not_count(world: PasskeyWorld) -> None:
    device = world.known()
    assert "does not count" in said(world.log_in(attrs.evolve(device, key=SoftwareDevice().key)))


def test_an_answer_counts_once(world: PasskeyWorld) -> None:
    device = world.known()
    begun = world.console.asker.get("/login/passkey")
    answer, id_ = device.log_in(options(begun)), begun.json()["id"]
    assert world.post("/login/passkey", id=id_, answer=answer).status == 200
    assert "answered before" in said(world.post("/login/passkey", id=id_, answer=answer))
    other = world.console.asker.get("/login/passkey").json()["id"]
    assert "does not count" in said(world.post("/login/passkey", id=other, answer=answer))


def test_an_answer_that_took_too_long_does_not_count(world: PasskeyWorld) -> None:
    device = world.known()
    begun = world.console.asker.get("/login/passkey")
    world.console.clock.now += 301
    fields = {"id": begun.json()["id"], "answer": device.log_in(options(begun))}
    assert "too long" in said(world.post("/login/passkey", **fields))


def test_a_step_of_a_registration_is_none_of_a_login(world: PasskeyWorld) -> None:
    device = world.known()
    begun = world.post(world.invite(), step="begin")
    answer = device.log_in({"challenge": options(begun)["challenge"]})
    assert said(world.post("/login/passkey", id=begun.json()["id"], answer=answer))


def test_a_step_for_one_person_makes_no_passkey_of_another(world: PasskeyWorld) -> None:
    begun = world.post(world.invite("bob"), step="begin")
    device = SoftwareDevice()
    answer = device.register(options(begun))
    path = world.invite("ann")
    found = world.post(path, step="finish", id=begun.json()["id"], label="x", answer=answer)
    assert "somebody else" in said(found)


def test_a_copy_of_a_passkey_is_seen_by_its_counter(world: PasskeyWorld) -> None:
    device = world.known(counter=5)
    copy = attrs.evolve(device)
    assert world.log_in(device).status == 200
    assert world.log_in(device).status == 200
    assert said(world.log_in(copy))
    assert world.log_in(device).status == 200


@pytest.mark.parametrize(
    "answer", ["", "{}", "[]", "null", "[" * 19_000, '{"id": 7}', '{"id": "x", "rawId": "x"}', "x" * 21_000, "\x01"]
)
def test_an_answer_that_is_none_is_refused(world: PasskeyWorld, answer: str) -> None:
    id_ = world.console.asker.get("/login/passkey").json()["id"]
    assert said(world.post("/login/passkey", id=id_, answer=answer))
    path = world.invite()
    id_ = world.post(path, step="begin").json()["id"]
    assert said(world.post(path, step="finish", id=id_, label="x", answer=answer))


@pytest.mark.parametrize("part", ["clientDataJSON", "authenticatorData", "signature"])
def test_a_part_that_is_missing_or_cut_is_refused(world: PasskeyWorld, part: str) -> None:
    device = world.known()
    whole = json.loads(device.log_in({"challenge": "x"}))
    for text in ("", "AA", "!", whole["response"][part][:-8]):
        assert said(world.log_in(device, **{part: text}))


# -- keys that sign never log in ---------------------------------------------------------------------------------------


def signers_with(device: SoftwareDevice, application: str = "sign.example.org") -> AllowedSigners:
    blob = encode_key(PublicKey(key_type=SK_ECDSA, point=device.point, application=application))
    return AllowedSigners.parse(f'ann namespaces="deploykit" {public_line(blob)}\n')


def test_a_key_that_signs_is_not_registered(world: PasskeyWorld) -> None:
    device = SoftwareDevice()
    world.console.login.signers = lambda: signers_with(device)
    assert "allowed_signers" in said(world.accept(device, world.invite()))
    assert world.accept(SoftwareDevice(), world.invite()).status == 200


def test_a_key_that_was_trusted_later_does_not_log_in(world: PasskeyWorld) -> None:
    device = world.known()
    world.console.login.signers = lambda: signers_with(device)
    assert "it signs, so it logs nobody in" in said(world.log_in(device))


def test_while_the_trusted_keys_cannot_be_read_nothing_new_is_registered(world: PasskeyWorld) -> None:
    device = world.known()

    def broken() -> AllowedSigners:
        raise KeyFileError("allowed_signers cannot be read")

    world.console.login.signers = broken
    assert said(world.accept(SoftwareDevice(), world.invite()))
    assert world.log_in(device).status == 200, "somebody has to mend it"


def test_a_passkey_that_was_enrolled_for_signing_does_not_log_in(world: PasskeyWorld) -> None:
    device = SoftwareDevice()
    credential = base64.urlsafe_b64encode(device.credential).rstrip(b"=").decode()
    world.console.ledger.passkeys.add(
        KeptPasskey(credential=credential, purpose="signing", name="ann", rp_id="deploy.example.org")
    )
    assert "signs rollouts and logs nobody in" in said(world.log_in(device))
    assert "has this passkey already" in said(world.accept(device, world.invite()))


def test_a_key_that_was_enrolled_for_signing_is_not_registered_under_another_id(world: PasskeyWorld) -> None:
    """Before its line is distributed, `allowed_signers` does not have it."""
    device = SoftwareDevice()
    x, y = device.point[1:33], device.point[33:]
    # The same numbers in another order than devices write them.
    cose = b"\xa5\x22\x58\x20" + y + b"\x21\x58\x20" + x + b"\x20\x01\x03\x26\x01\x02"
    signing = KeptPasskey(credential="b3RoZXI", purpose="signing", name="ann", public_key=cose, rp_id=device.rp_id)
    world.console.ledger.passkeys.add(signing)
    assert "has this passkey already" in said(world.accept(device, world.invite()))


# -- sessions ----------------------------------------------------------------------------------------------------------


def test_a_removed_passkey_ends_its_sessions(world: PasskeyWorld) -> None:
    cookie = world.cookie(world.known())
    (passkey,) = world.console.ledger.passkeys.list("ann")
    assert world.console.asker.get("/", {"cookie": cookie}).status == 200
    world.console.ledger.passkeys.remove(passkey.credential, "ann")
    assert world.console.asker.get("/", {"cookie": cookie}).status == 303


def test_beside_passwords_a_name_that_is_gone_cannot_log_in(tmp_path: Path) -> None:
    world = passkey_world(tmp_path, mode="password")
    device, gone = world.known("ann"), world.known("ann")
    cookie = world.cookie(device)
    world.console.file.write_text("".join(x for x in world.console.file.read_text().splitlines(True) if "ann" not in x))
    world.console.login.reload(world.console.login.settings)
    assert world.console.asker.get("/", {"cookie": cookie}).status == 303
    assert "nobody of this passkey's name" in said(world.log_in(gone))


def test_a_login_by_passkey_has_no_groups(tmp_path: Path) -> None:
    world = passkey_world(tmp_path, mode="oidc", access=(access("@ops", role="admin"), access("ann", role="live")))
    cookie = world.cookie(world.known("ann"))
    assert world.console.asker.get("/", {"cookie": cookie}).text.startswith("ann *=live ")


def test_a_session_of_another_login_is_replaced(world: PasskeyWorld) -> None:
    device = world.known()
    first = world.cookie(device)
    begun = world.console.asker.get("/login/passkey")
    answer = world.post("/login/passkey", first, id=begun.json()["id"], answer=device.log_in(options(begun)))
    assert answer.status == 200
    assert world.console.asker.get("/", {"cookie": first}).status == 303


def test_the_pages_carry_what_our_script_needs(world: PasskeyWorld) -> None:
    page = world.console.asker.get("/login").text
    assert 'data-passkey="login" data-address="/login/passkey"' in page
    assert "deploykit web invite" in page
    assert "/static/passkey." in page


def test_a_stolen_ledger_logs_nobody_in(world: PasskeyWorld) -> None:
    """Neither an invitation, nor a challenge, nor a session, nor the token of a form is in it."""
    path = world.invite()
    cookie = world.cookie(world.known())
    begun = world.console.asker.get("/login/passkey")
    token = world.console.asker.get("/", {"cookie": cookie}).text.partition("token=")[2].strip()
    folder = world.console.file.parent
    content = b"".join(each.read_bytes() for each in folder.glob("ledger.db*"))
    challenge = base64.urlsafe_b64decode(options(begun)["challenge"] + "=")
    secrets = [path[8:], cookie.partition("=")[2], begun.json()["id"], options(begun)["challenge"], token]
    assert not [one for one in secrets if one.encode() in content]
    assert challenge not in content
    for row in world.console.ledger.sessions.list_of("ann"):
        for name in (SESSION, "deploykit"):
            assert world.console.asker.get("/", {"cookie": f"{name}={row.key}"}).status == 303


# -- the command line --------------------------------------------------------------------------------------------------


def test_who_may_be_invited(world: PasskeyWorld, tmp_path: Path) -> None:
    settings = attrs.evolve(world.console.login.settings, access=(access("ann"),))
    made = make_invitation(settings, tmp_path, "ann")
    assert made.url.startswith(f"{URL}/invite/")
    assert made.may
    assert not make_invitation(settings, tmp_path, "bob").may
    assert made.url not in repr(made)
    for name in ("@ops", "", " ann", "a\nb"):
        with pytest.raises(UsageError):
            make_invitation(settings, tmp_path, name)
    with pytest.raises(UsageError, match="takes no passkeys"):
        make_invitation(attrs.evolve(settings, login="proxy", proxies=("unix",)), tmp_path, "ann")
    beside = attrs.evolve(settings, login="password", passkeys=True, password_file=world.console.file)
    with pytest.raises(UsageError, match="carl is not in"):
        make_invitation(beside, tmp_path, "carl")
