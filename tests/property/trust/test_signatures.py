"""Signatures and trust files hold for any bytes: what was signed verifies, and nothing else does or breaks us."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from datetime import UTC, datetime

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deploykit.errors import KeyFileError, SignatureError
from deploykit.trust import signerlines
from deploykit.trust.allowed_signers import AllowedSigners, matches
from deploykit.trust.clientdata import check_client_data
from deploykit.trust.keyformat import MalformedBlob, encode_key, key_blob, parse_public_line, public_line, read_key
from deploykit.trust.signature import HEADER, body_digest, sign, verify, verify_blob
from deploykit.trust.signaturerules import SignatureRules
from deploykit.trust.sshsig import armor, dearmor, decode_blob, decode_header, encode_blob
from deploykit.wire.frame import Frame
from tests.support.certificates import AUTHORITY, CertificateMaker, krl
from tests.support.keys import fixed_key
from tests.support.securitykeys import SoftwarePasskey, SoftwareSecurityKey

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEY = fixed_key(1)
OTHER = fixed_key(2)
ALLOWED = AllowedSigners.parse(f"ops {KEY.public_openssh}")
GOOD = KEY.sign_body(b"body")


@given(st.binary(max_size=2000))
def test_what_was_signed_verifies(body: bytes) -> None:
    assert verify(sign(Frame({}, body), KEY), ALLOWED, NOW).fingerprint == KEY.fingerprint


@given(st.binary(min_size=1, max_size=500), st.data())
def test_threat_1_one_flipped_bit_anywhere_is_refused(body: bytes, data: st.DataObject) -> None:
    """Over body and signature alike: the two laid end to end, and one bit of it turned."""
    blob = KEY.sign_body(body)
    whole = bytearray(body + blob)
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SignatureError):
        verify_blob(bytes(whole[: len(body)]), bytes(whole[len(body) :]), ALLOWED, NOW)


_TOUCHED = (SoftwareSecurityKey.ed25519(), SoftwareSecurityKey.ecdsa(), SoftwarePasskey())
_RULES = SignatureRules(origins=frozenset(["https://deploy.example.org"]), rp_ids=frozenset(["deploy.example.org"]))
_ALLOWED = attrs.evolve(AllowedSigners.parse("\n".join(f"ops {key.public_openssh}" for key in _TOUCHED)), rules=_RULES)


@given(st.sampled_from(_TOUCHED), st.binary(min_size=1, max_size=300), st.booleans(), st.booleans(), st.data())
def test_threat_1_one_flipped_bit_of_a_security_keys_signature_is_refused(
    key: SoftwareSecurityKey, body: bytes, verified: bool, high_s: bool, data: st.DataObject
) -> None:
    key.verified, key.high_s, key.counter = verified, high_s, 7
    blob = key.sign_body(body)
    assert verify_blob(body, blob, _ALLOWED, NOW).verified is verified
    whole = bytearray(body + blob)
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SignatureError):
        verify_blob(bytes(whole[: len(body)]), bytes(whole[len(body) :]), _ALLOWED, NOW)


@given(st.sampled_from(_TOUCHED), st.data())
def test_a_mutated_signature_of_a_security_key_is_refused_with_a_signature_error(
    key: SoftwareSecurityKey, data: st.DataObject
) -> None:
    key.verified, key.high_s, key.counter = False, None, 7
    good = key.sign_body(b"body")
    pieces = data.draw(st.lists(st.tuples(st.integers(0, len(good)), st.integers(0, len(good))), max_size=5))
    blob = b"".join(good[a:b] for a, b in pieces)
    if blob != good:
        with pytest.raises(SignatureError):
            verify_blob(b"body", blob, _ALLOWED, NOW)


@given(st.binary(max_size=300), st.binary(max_size=100))
@example(b'{"type":"webauthn.get"', b"x")
def test_any_client_data_is_refused_with_one_error(data: bytes, challenge: bytes) -> None:
    with pytest.raises(MalformedBlob):
        check_client_data(data, challenge=challenge, origin="https://deploy.example.org")


@given(st.dictionaries(st.text(max_size=12), st.none() | st.booleans() | st.text(max_size=20), max_size=5))
@example({"crossOrigin": False})
def test_what_a_browser_adds_to_client_data_never_changes_its_meaning(more: dict[str, object]) -> None:
    fields = {
        "type": "webauthn.get",
        "challenge": base64.urlsafe_b64encode(b"x").decode().rstrip("="),
        "origin": "https://deploy.example.org",
    }
    text = json.dumps({**fields, **more}, separators=(",", ":")).encode()
    try:
        check_client_data(text, challenge=b"x", origin="https://deploy.example.org")
    except MalformedBlob:
        return
    assert json.loads(text)["crossOrigin" if "crossOrigin" in more else "origin"] in (False, fields["origin"])
    assert {name: json.loads(text)[name] for name in fields} == fields


@given(st.binary(max_size=200))
def test_any_key_is_read_back_or_refused(blob: bytes) -> None:
    try:
        key = read_key(blob)
    except MalformedBlob:
        return
    assert encode_key(key) == blob


CERTIFIED = KEY.with_certificate(CertificateMaker(key=KEY.public_blob).make()).sign_body(b"body")
BY_CERTIFICATE = AllowedSigners.parse(f"* cert-authority {AUTHORITY.public_openssh}")


def test_a_certificate_counts_before_it_is_changed() -> None:
    assert verify_blob(b"body", CERTIFIED, BY_CERTIFICATE, NOW).is_principal("ann")


@given(st.integers(0, len(CERTIFIED) * 8 - 1))
def test_threat_1_one_flipped_bit_of_a_certificate_is_refused(bit: int) -> None:
    changed = bytearray(CERTIFIED)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SignatureError):
        verify_blob(b"body", bytes(changed), BY_CERTIFICATE, NOW)


@given(st.data())
def test_a_mutated_certificate_is_refused_with_a_signature_error(data: st.DataObject) -> None:
    pieces = data.draw(st.lists(st.tuples(st.integers(0, len(CERTIFIED)), st.integers(0, len(CERTIFIED))), max_size=5))
    blob = b"".join(CERTIFIED[a:b] for a, b in pieces)
    if blob != CERTIFIED:
        with pytest.raises(SignatureError) as caught:
            verify_blob(b"body", blob, BY_CERTIFICATE, NOW)
        assert str(caught.value).isprintable()


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda data: krl() + data))
def test_any_list_of_revoked_keys_is_read_or_refused_with_a_key_file_error(data: bytes) -> None:
    with contextlib.suppress(KeyFileError):
        AllowedSigners.parse("", revoked=data)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_signature_fits_one_body_only(one: bytes, two: bytes) -> None:
    if one == two:
        assert body_digest(one) == body_digest(two)
        return
    assert body_digest(one) != body_digest(two)
    with pytest.raises(SignatureError):
        verify_blob(two, KEY.sign_body(one), ALLOWED, NOW)


@given(st.text(max_size=400) | st.binary(max_size=400).map(lambda data: base64.b64encode(data).decode()))
@example("A" * 6000)
@example("\ud800")
def test_any_header_is_refused_with_a_signature_error(value: str) -> None:
    with pytest.raises(SignatureError) as caught:
        verify(Frame({HEADER: value}, b"body"), ALLOWED, NOW)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@given(st.binary(max_size=300))
@example(b"SSHSIG")
@example(b"SSHSIG\0\0\0\1\xff\xff\xff\xff")
@example(GOOD[:-1])
@example(GOOD + b"\0")
@example(GOOD[:10] + b"\xff\xff\xff\xff" + GOOD[14:])
def test_any_blob_is_refused_with_a_signature_error(blob: bytes) -> None:
    with pytest.raises(SignatureError):
        verify_blob(b"body", blob, ALLOWED, NOW)


@given(st.data())
def test_a_mutated_blob_is_refused_with_a_signature_error(data: st.DataObject) -> None:
    """Cut, doubled, swapped pieces of a good signature: the shapes that get deep into a parser."""
    pieces = data.draw(st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, len(GOOD))), max_size=5))
    blob = b"".join(GOOD[a:b] for a, b in pieces)
    if blob != GOOD:
        with pytest.raises(SignatureError):
            verify_blob(b"body", blob, ALLOWED, NOW)


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_only_well_formed_parts_are_taken_apart(key: bytes, signature: bytes) -> None:
    with pytest.raises(SignatureError):
        decode_blob(encode_blob(key, signature))


@given(st.binary(max_size=1000))
def test_armor_is_undone_by_dearmor(blob: bytes) -> None:
    if blob:
        assert dearmor(armor(blob)) == blob


@given(st.text(max_size=300))
def test_any_signature_file_is_refused_with_a_signature_error(text: str) -> None:
    with pytest.raises(SignatureError):
        decode_blob(dearmor(text))


@given(st.text(max_size=200))
@example(f"ops {KEY.public_openssh}")
def test_a_trust_file_is_read_or_refused_with_a_key_file_error(text: str) -> None:
    problems: tuple[str, ...] = ()
    try:
        signers = AllowedSigners.parse(text, revoked=text)
    except KeyFileError as error:
        signers, problems = AllowedSigners(), error.problems
    assert all("line" in problem for problem in problems)
    assert len(signers.signers) <= text.count("\n") + 1


_WORDS = st.sampled_from(
    [
        *("ops", "*", '"a b"', ",", " ", "\t", "namespaces=", '"deploykit"', "valid-after=", '"20260101Z"', "=", '"'),
        *("cert-authority", KEY.public_openssh, OTHER.public_openssh, "ssh-ed25519", "#", "\r", "\n", "!", "\\", "é"),
    ]
)


@given(st.lists(_WORDS, max_size=14).map("".join))
def test_a_trust_file_of_likely_words_never_trusts_more_than_its_keys(text: str) -> None:
    try:
        signers = AllowedSigners.parse(text)
    except KeyFileError:
        return
    for signer in signers.signers:
        assert signer.key in (KEY.public_blob, OTHER.public_blob)
        assert all(signer.principals)


@given(st.lists(st.one_of(_WORDS.map(str), st.text(max_size=3)), max_size=14).map("".join))
@example(f"ops ssh-rsa {KEY.public_openssh}")
@example(f'ops namespaces="deploykit",valid-after="20260101Z" {KEY.public_openssh} a comment ')
@example(f"ops,,dev {KEY.public_openssh}")
@example(f"ops {public_line(key_blob(bytes(32)))}")
def test_the_quick_way_through_a_trust_file_means_the_same_as_the_other(text: str) -> None:
    quick = _outcome(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signerlines, "_USUAL_LINE", lambda line: None)
        patch.setattr(signerlines, "_USUAL_REVOKED", lambda line: None)
        assert quick == _outcome(text)


def _outcome(text: str) -> object:
    try:
        return AllowedSigners.parse(text, revoked=text.partition(" ")[2])
    except KeyFileError as error:
        return error.problems


@given(st.text(max_size=100))
def test_a_public_line_is_read_or_refused_with_a_key_file_error(text: str) -> None:
    with pytest.raises(KeyFileError):
        parse_public_line(text)


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_patterns_agree_with_their_definition(pattern: str, text: str) -> None:
    def by_definition(p: str, t: str) -> bool:
        if not p:
            return not t
        if p[0] == "*":
            return any(by_definition(p[1:], t[at:]) for at in range(len(t) + 1))
        return bool(t) and p[0] in ("?", t[0]) and by_definition(p[1:], t[1:])

    assert matches([pattern], text) is by_definition(pattern, text)


@pytest.mark.parametrize(
    "value",
    ["A" * 10_000_000, "=" * 10_000_000, "\0" * 10_000_000, base64.b64encode(b"SSHSIG" + b"\xff" * 9_000_000).decode()],
)
def test_a_huge_header_costs_nothing(value: str) -> None:
    began = time.process_time()
    with pytest.raises(SignatureError, match="too long"):
        decode_header(value)
    assert time.process_time() - began < 0.5
