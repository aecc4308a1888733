"""Signatures by security keys and passkeys: each kind counts; what was changed, or shows too little, does not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import attrs
import pytest

from deploykit.errors import KeyFileError, SignatureError, SignatureNotEnough
from deploykit.settings.trust import TrustSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.keyformat import (
    SK_ECDSA,
    SK_ED25519,
    PublicKey,
    encode_key,
    parse_key,
    parse_public_line,
    public_line,
    ssh_string,
)
from deploykit.trust.signature import (
    HEADER,
    Signer,
    SigningKey,
    add_signature,
    body_digest,
    copy_digest,
    sign,
    verify,
    verify_blob,
)
from deploykit.trust.signaturerules import SignatureRules
from deploykit.trust.sshsig import WEBAUTHN, decode_blob, decode_header, ecdsa_numbers, encode_header, encode_parts
from deploykit.trust.trustreader import TrustReader
from deploykit.wire.frame import Frame
from tests.support.keys import fixed_key
from tests.support.securitykeys import (
    ATTESTED,
    EXTENDED,
    ORDER,
    BrowserSignature,
    SoftwarePasskey,
    SoftwareSecurityKey,
    browser_signatures,
    mpint,
)

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
BODY = b'{"id":"1"}'
ORIGIN, RP_ID = "https://deploy.example.org", "deploy.example.org"
RULES = SignatureRules(origins=frozenset([ORIGIN]), rp_ids=frozenset([RP_ID]))

Key: TypeAlias = SigningKey | SoftwareSecurityKey
KINDS = ["ssh-ed25519", SK_ED25519, SK_ECDSA, WEBAUTHN]
TOUCHED = KINDS[1:]


def key_of(kind: str) -> Key:
    if kind == WEBAUTHN:
        return SoftwarePasskey(ORIGIN, RP_ID)
    return fixed_key(1) if kind == "ssh-ed25519" else SoftwareSecurityKey(kind)


def touched(kind: str) -> SoftwareSecurityKey:
    key = key_of(kind)
    assert isinstance(key, SoftwareSecurityKey)
    return key


def allowing(*keys: Key, rules: SignatureRules = RULES) -> AllowedSigners:
    return attrs.evolve(AllowedSigners.parse("\n".join(f"ops {key.public_openssh}" for key in keys)), rules=rules)


def judged(key: Key, *, rules: SignatureRules = RULES, body: bytes = BODY) -> Signer:
    return verify_blob(body, key.sign_body(body), allowing(key, rules=rules), NOW)


# -- what counts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_counts_and_shows_what_it_knows(kind: str) -> None:
    key = key_of(kind)
    assert judged(key) == Signer(
        fingerprint=key.fingerprint,
        principals=(("ops",),),
        key_type=SK_ECDSA if kind == WEBAUTHN else kind,
        present=kind in TOUCHED,
        verified=kind == WEBAUTHN,
        origin=ORIGIN if kind == WEBAUTHN else "",
    )


@pytest.mark.parametrize("made", browser_signatures(), ids=["verified", "touched"])
def test_what_a_browser_made_counts(made: BrowserSignature) -> None:
    rules = SignatureRules(origins=frozenset([made.origin]), rp_ids=frozenset([made.rp_id]))
    allowed = attrs.evolve(AllowedSigners.parse(f"ops {made.public_openssh}"), rules=rules)
    signer = verify(Frame({HEADER: made.header}, made.body), allowed, NOW).each[0]
    assert (signer.present, signer.verified, signer.origin) == (True, made.verified, "http://localhost:8965")
    with pytest.raises(SignatureError, match="not about this message"):
        verify(Frame({HEADER: made.header}, made.body + b" "), allowed, NOW)


def test_a_passkey_in_software_writes_what_a_browser_writes() -> None:
    for made in browser_signatures():
        blob = decode_header(made.header)
        theirs = decode_blob(blob)
        key = SoftwarePasskey(made.origin, made.rp_id, verified=made.verified, counter=theirs.counter - 1)
        ours = decode_blob(key.sign_body(made.body))
        same = (attrs.asdict(parts, filter=lambda field, _: field.name in SAME) for parts in (ours, theirs))
        assert next(same) == next(same)


SAME = {"kind", "flags", "counter", "origin", "client_data", "extensions"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", [b"", b"x" * 1_000_000, bytes(range(256))])
def test_each_kind_signs_any_body(kind: str, body: bytes) -> None:
    assert judged(key_of(kind), body=body).is_principal("ops")


def test_four_kinds_sign_one_message() -> None:
    keys = [key_of(kind) for kind in KINDS]
    frame = Frame({}, BODY)
    for key in keys:
        frame = add_signature(frame, key)
    signers = verify(frame, allowing(*keys), NOW)
    assert [signer.fingerprint for signer in signers.each] == sorted(key.fingerprint for key in keys)
    assert sum(signer.present for signer in signers.each) == 3
    assert len(frame.headers[HEADER]) < 2500  # room is left in the header block of every broker


# -- threat 1: not a bit may change ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_threat_1_every_flipped_bit_of_a_signature_is_refused(kind: str) -> None:
    key = key_of(kind)
    allowed, blob = allowing(key), key.sign_body(BODY)
    for bit in range(len(blob) * 8):
        changed = bytearray(blob)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SignatureError):
            verify_blob(BODY, bytes(changed), allowed, NOW)


@pytest.mark.parametrize("kind", TOUCHED)
def test_threat_1_every_flipped_bit_of_the_body_is_refused(kind: str) -> None:
    key = key_of(kind)
    allowed, blob = allowing(key), key.sign_body(BODY)
    for bit in range(len(BODY) * 8):
        changed = bytearray(BODY)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SignatureError, match=r"does not fit|is not about this message"):
            verify_blob(bytes(changed), blob, allowed, NOW)


@pytest.mark.parametrize("kind", KINDS)
def test_threat_1_every_cut_and_every_longer_signature_is_refused(kind: str) -> None:
    key = key_of(kind)
    allowed, blob = allowing(key), key.sign_body(BODY)
    for end in range(len(blob)):
        with pytest.raises(SignatureError):
            verify_blob(BODY, blob[:end], allowed, NOW)
    with pytest.raises(SignatureError, match="follows its end"):
        verify_blob(BODY, blob + b"\0", allowed, NOW)


@pytest.mark.parametrize("kind", TOUCHED)
@pytest.mark.parametrize("other", KINDS)
def test_threat_1_another_kind_of_signature_does_not_pass_as_this_one(kind: str, other: str) -> None:
    if kind == other:
        return
    key, wrapped = key_of(kind), decode_blob(key_of(other).sign_body(BODY))
    tail = bytes([wrapped.flags]) + wrapped.counter.to_bytes(4, "big")
    for shape in (kind, other):
        forged = encode_parts(key.public_blob, ssh_string(shape.encode()) + ssh_string(wrapped.signature) + tail)
        with pytest.raises(SignatureError):
            verify_blob(BODY, forged, allowing(key), NOW)


# -- threat 44: several signatures of one key over one body -----------------------------------------------------------


@pytest.mark.parametrize("kind", [SK_ECDSA, WEBAUTHN])
def test_threat_44_both_s_and_its_opposite_count_and_name_the_same_message(kind: str) -> None:
    key = touched(kind)
    frames = []
    for high in (False, True):
        key.high_s = high
        frames.append(sign(Frame({}, BODY), key))
    low, high_one = frames
    numbers = [decode_blob(decode_header(frame.headers[HEADER])).signature for frame in frames]
    assert ecdsa_numbers(numbers[0])[1] <= ORDER // 2 < ecdsa_numbers(numbers[1])[1]
    assert verify(low, allowing(key), NOW) == verify(high_one, allowing(key), NOW)
    assert copy_digest(low) == copy_digest(high_one)
    assert body_digest(low.body) == body_digest(high_one.body)


@pytest.mark.parametrize("kind", TOUCHED)
def test_threat_44_one_key_counts_once_however_often_it_signs(kind: str) -> None:
    key = key_of(kind)
    blobs = [key.sign_body(BODY), key.sign_body(BODY)]
    frame = Frame({HEADER: ",".join(map(encode_header, blobs))}, BODY)
    with pytest.raises(SignatureError, match="one key signed twice"):
        verify(frame, allowing(key), NOW)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_threat_44_the_order_of_signatures_changes_nothing(order: list[int]) -> None:
    keys = [key_of(kind) for kind in TOUCHED]
    values = [encode_header(keys[at].sign_body(BODY)) for at in order]
    frame = Frame({HEADER: ",".join(values)}, BODY)
    assert [s.fingerprint for s in verify(frame, allowing(*keys), NOW).each] == sorted(k.fingerprint for k in keys)
    assert copy_digest(frame) == copy_digest(Frame({HEADER: ",".join(reversed(values))}, BODY))


def test_threat_44_one_bad_signature_spoils_the_message() -> None:
    good, stranger = key_of(SK_ECDSA), fixed_key(9)
    frame = add_signature(sign(Frame({}, BODY), good), stranger)
    with pytest.raises(SignatureError, match="not among the allowed"):
        verify(frame, allowing(good), NOW)
    elsewhere = encode_header(stranger.sign_body(b"another"))
    frame = Frame({HEADER: f"{sign(Frame({}, BODY), good).headers[HEADER]},{elsewhere}"}, BODY)
    with pytest.raises(SignatureError, match="does not fit"):
        verify(frame, allowing(good, stranger), NOW)


# -- what a signature must show --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TOUCHED)
def test_a_signature_without_a_touch_is_refused(kind: str) -> None:
    key = touched(kind)
    key.presence, key.verified = False, True
    with pytest.raises(SignatureNotEnough, match="somebody touched the key"):
        judged(key)


@pytest.mark.parametrize("kind", TOUCHED)
def test_a_signature_without_verification_is_refused_where_it_is_required(kind: str) -> None:
    key = touched(kind)
    strict = attrs.evolve(RULES, verify_required=True)
    key.verified = False
    assert not judged(key).verified
    with pytest.raises(SignatureNotEnough, match="PIN or finger"):
        judged(key, rules=strict)
    key.verified = True
    assert judged(key, rules=strict).verified


def test_plain_keys_count_where_verification_is_required() -> None:
    """Nodes and coordinators have such keys. Where a person is needed, the site asks for `require = "person"`."""
    assert not judged(fixed_key(1), rules=attrs.evolve(RULES, verify_required=True)).present


@pytest.mark.parametrize(
    ("origin", "rp_id", "says"),
    [
        ("https://evil.example.org", RP_ID, "trust.origins"),
        ("https://deploy.example.org.evil.net", RP_ID, "trust.origins"),
        ("https://deploy.example.org:8443", RP_ID, "trust.origins"),
        ("http://deploy.example.org", RP_ID, "trust.origins"),
        ("HTTPS://deploy.example.org", RP_ID, "trust.origins"),
        ("", RP_ID, "trust.origins"),
        (ORIGIN, "example.org", "trust.rp_ids"),
        (ORIGIN, "evil.net", "trust.rp_ids"),
        (ORIGIN, "ssh:", "trust.rp_ids"),
    ],
)
def test_threat_43_a_passkey_of_another_page_or_site_is_refused(origin: str, rp_id: str, says: str) -> None:
    with pytest.raises(SignatureNotEnough, match=says):
        judged(SoftwarePasskey(origin, rp_id))


def test_no_passkey_counts_by_default() -> None:
    with pytest.raises(SignatureNotEnough, match=r"trust\.rp_ids"):
        judged(SoftwarePasskey(ORIGIN, RP_ID), rules=SignatureRules())


@pytest.mark.parametrize("kind", [SK_ED25519, SK_ECDSA])
@pytest.mark.parametrize("application", [RP_ID, "SSH:", "xssh:", "https://ssh:"])
def test_a_plain_signature_by_a_key_that_was_not_made_for_ssh_is_refused(kind: str, application: str) -> None:
    with pytest.raises(SignatureNotEnough, match="not for 'ssh:'"):
        judged(SoftwareSecurityKey(kind, application=application))
    assert judged(SoftwareSecurityKey(kind, application="ssh:deploys of Bücher")).present


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (SoftwarePasskey(ORIGIN, RP_ID), ""),
        (SoftwareSecurityKey.ecdsa(), ""),
        (SoftwareSecurityKey.ed25519(application="ssh:x"), ""),
        (SoftwarePasskey(ORIGIN, "evil.net"), "not in trust.rp_ids"),
        (SoftwareSecurityKey.ed25519(application=RP_ID), "passkeys count only as sk-ecdsa"),
    ],
)
def test_of_a_key_that_can_never_count_it_is_known_why(key: SoftwareSecurityKey, says: str) -> None:
    never = RULES.never(key.public)
    assert says in never
    assert bool(never) is bool(says)


def test_the_rules_come_with_the_trusted_files(tmp_path: Path) -> None:
    key = SoftwarePasskey(ORIGIN, RP_ID)
    path = tmp_path / "allowed_signers"
    path.write_text(f"ops {key.public_openssh}\n")
    settings = TrustSettings(allowed_signers=path, origins=(ORIGIN,), rp_ids=(RP_ID,), verify_required=True)
    frame = sign(Frame({}, BODY), key)
    assert verify(frame, TrustReader(settings)(), NOW).is_principal("ops")
    with pytest.raises(SignatureNotEnough):
        verify(frame, TrustReader(attrs.evolve(settings, origins=()))(), NOW)


# -- client data -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tail",
    [
        "}",
        ',"crossOrigin":false}',
        ',"crossOrigin":false,"other_keys_can_be_added_here":"do not compare clientDataJSON against a template"}',
        ',"tokenBinding":{"status":"supported"}}',
    ],
)
def test_client_data_as_browsers_write_it_counts(tail: str) -> None:
    key = SoftwarePasskey(ORIGIN, RP_ID)
    key.client_data_tail = tail
    assert judged(key).origin == ORIGIN


@pytest.mark.parametrize(
    ("tail", "says"),
    [
        (',"crossOrigin":true}', "inside another's page"),
        (',"crossOrigin":null}', "inside another's page"),
        (',"crossOrigin":0}', "inside another's page"),
        (',"topOrigin":"https://evil.net"}', "inside another's page"),
        (',"crossOrigin":false,"crossOrigin":false}', "a key is given twice"),
        (',"challenge":"AAAA"}', "a key is given twice"),
        (',"origin":"https://evil.net"}', "a key is given twice"),
        (',"\\u006frigin":"https://evil.net"}', "a key is given twice"),
        (',"type":"webauthn.create"}', "a key is given twice"),
        ("", "not JSON"),
        ("} ]", "not JSON"),
        (',"x":NaN}', "not JSON"),
        ("[" * 70, "not JSON"),
    ],
)
def test_threat_43_client_data_with_another_meaning_is_refused(tail: str, says: str) -> None:
    key = SoftwarePasskey(ORIGIN, RP_ID)
    key.client_data_tail = tail
    with pytest.raises(SignatureError, match=says):
        judged(key)


def test_threat_43_client_data_with_another_challenge_is_refused() -> None:
    key = SoftwarePasskey(ORIGIN, RP_ID)
    key.challenge = b"a login"
    with pytest.raises(SignatureError, match="not about this message"):
        judged(key)


def test_threat_43_a_login_or_registration_is_no_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    key = SoftwarePasskey(ORIGIN, RP_ID)
    real = key.client_data
    for kind in (b"webauthn.create", b"payment.get"):
        monkeypatch.setattr(key, "client_data", lambda message, k=kind: real(message).replace(b"webauthn.get", k))
        with pytest.raises(SignatureError, match="not about this message"):
            judged(key)


def test_threat_43_the_origin_beside_the_client_data_must_be_the_one_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    key = SoftwarePasskey(ORIGIN, RP_ID)
    real = key.client_data
    monkeypatch.setattr(key, "client_data", lambda message: real(message).replace(b"deploy.ex", b"deplox.ex"))
    with pytest.raises(SignatureError, match="not about this message and this web page"):
        judged(key)


@pytest.mark.parametrize("origin", ['https://a","x":"', "https://a\\", "https://a b", "https://a\n", "https://ä"])
def test_an_origin_that_could_change_the_json_is_refused(origin: str) -> None:
    with pytest.raises(SignatureError, match="its origin holds what no origin holds"):
        judged(SoftwarePasskey(origin, RP_ID))


# -- flags, extensions, numbers --------------------------------------------------------------------------------------


def test_extensions_that_are_signed_count() -> None:
    key = SoftwarePasskey(ORIGIN, RP_ID)
    key.extensions = bytes.fromhex("a16b6372656450726f7465637402")
    assert judged(key).present


@pytest.mark.parametrize("kind", TOUCHED)
@pytest.mark.parametrize("flag", [ATTESTED, EXTENDED])
def test_flags_that_promise_data_which_is_not_there_are_refused(kind: str, flag: int) -> None:
    key = touched(kind)
    key.more_flags = flag
    with pytest.raises(SignatureError, match="promise data"):
        judged(key)


@pytest.mark.parametrize("kind", TOUCHED)
def test_flags_of_a_passkey_that_is_synchronised_count(kind: str) -> None:
    key = touched(kind)
    key.more_flags = 0x18  # may be backed up, is backed up
    assert judged(key).present


@pytest.mark.parametrize(
    "numbers",
    [
        b"",
        mpint(1),
        mpint(1) + mpint(2) + b"\0",
        ssh_string(b"") + mpint(2),
        ssh_string(b"\0") + mpint(2),
        ssh_string(b"\0\x01") + mpint(2),
        ssh_string(b"\x80") + mpint(2),
        mpint(1) + ssh_string(b"\xff" * 32),
        mpint(1 << 256) + mpint(2),
        mpint(1) + mpint(1 << 300),
    ],
)
def test_numbers_have_one_form(numbers: bytes) -> None:
    key = touched(SK_ECDSA)
    tail = b"\x01\0\0\0\x07"
    blob = encode_parts(key.public_blob, ssh_string(SK_ECDSA.encode()) + ssh_string(numbers) + tail)
    with pytest.raises(SignatureError, match="is malformed"):
        verify_blob(BODY, blob, allowing(key), NOW)


@pytest.mark.parametrize("numbers", [(1, ORDER), (ORDER, 1), (ORDER, ORDER), ((1 << 256) - 1, 1), (1, 1)])
def test_numbers_of_the_group_or_beyond_sign_nothing(numbers: tuple[int, int]) -> None:
    key = touched(SK_ECDSA)
    signature = b"".join(map(mpint, numbers))
    blob = encode_parts(key.public_blob, ssh_string(SK_ECDSA.encode()) + ssh_string(signature) + b"\x01\0\0\0\x07")
    with pytest.raises(SignatureError, match="does not fit"):
        verify_blob(BODY, blob, allowing(key), NOW)


def test_a_longer_signature_of_ed25519_is_refused() -> None:
    key = touched(SK_ED25519)
    blob = encode_parts(key.public_blob, ssh_string(SK_ED25519.encode()) + ssh_string(bytes(65)) + b"\x01\0\0\0\x07")
    with pytest.raises(SignatureError, match="64 bytes"):
        verify_blob(BODY, blob, allowing(key), NOW)


# -- public keys -----------------------------------------------------------------------------------------------------

GOOD = touched(SK_ECDSA).public.point
P = 2**256 - 2**224 + 2**192 + 2**96 - 1


def ecdsa_key(point: bytes, *, curve: bytes = b"nistp256", application: bytes = b"ssh:", tail: bytes = b"") -> bytes:
    return b"".join(map(ssh_string, (SK_ECDSA.encode(), curve, point, application))) + tail


@pytest.mark.parametrize(
    ("blob", "says"),
    [
        (ecdsa_key(GOOD[:-1] + bytes([GOOD[-1] ^ 1])), "not on the curve"),
        (ecdsa_key(b"\x04" + bytes(64)), "not on the curve"),
        (ecdsa_key(b"\x04" + (int.from_bytes(GOOD[1:33], "big") + P).to_bytes(33, "big")[-32:] + GOOD[33:]), "curve"),
        (ecdsa_key(b"\x04" + b"\xff" * 64), "not on the curve"),
        (ecdsa_key(bytes([2 + (GOOD[-1] & 1)]) + GOOD[1:33]), "65 bytes"),  # compressed
        (ecdsa_key(bytes([6 + (GOOD[-1] & 1)]) + GOOD[1:]), "65 bytes"),  # hybrid
        (ecdsa_key(b"\0"), "65 bytes"),  # infinity
        (ecdsa_key(b""), "65 bytes"),
        (ecdsa_key(GOOD, curve=b"nistp384"), "its curve is 'nistp384'"),
        (ecdsa_key(GOOD, application=b""), "application"),
        (ecdsa_key(GOOD, application=b"ssh:\0x"), "application"),
        (ecdsa_key(GOOD, application=b"ssh:\xff"), "application"),
        (ecdsa_key(GOOD, application=b"s" * 256), "application"),
        (ecdsa_key(GOOD, tail=b"\0"), "follows its end"),
        (ecdsa_key(GOOD)[:-1], "cut short"),
        (encode_key(PublicKey(key_type=SK_ED25519, point=bytes(32), application="ssh:")), "weak point"),
        (encode_key(PublicKey(key_type=SK_ED25519, point=b"\xff" * 31, application="ssh:")), "32 bytes"),
        (b"".join(map(ssh_string, (b"ecdsa-sha2-nistp256", b"nistp256", GOOD))), "its type is"),
    ],
)
def test_a_key_that_is_none_is_refused_with_the_reason(blob: bytes, says: str) -> None:
    with pytest.raises(KeyFileError, match=says):
        parse_key(blob)


def test_a_line_with_a_key_that_is_none_refuses_the_file() -> None:
    line = public_line(ecdsa_key(b"\x04" + b"\x01" * 64))
    with pytest.raises(KeyFileError, match=r"line 2: .*not on the curve"):
        AllowedSigners.parse(f"ops {key_of(SK_ECDSA).public_openssh}\nops {line}\n")


@pytest.mark.parametrize("kind", TOUCHED)
def test_a_key_is_read_from_its_line_and_written_as_it_was(kind: str) -> None:
    key = touched(kind)
    assert parse_public_line(f"{key.public_openssh} a token") == (key.public_blob, "a token")
    assert encode_key(parse_key(key.public_blob)) == key.public_blob
    assert parse_key(key.public_blob) == key.public


def test_a_line_that_names_another_type_is_refused() -> None:
    text = key_of(SK_ECDSA).public_openssh.split()[1]
    with pytest.raises(KeyFileError, match=f"the line says {SK_ED25519} but the key says {SK_ECDSA}"):
        parse_public_line(f"{SK_ED25519} {text}")
    for line in (f"{WEBAUTHN} {text}", f"ecdsa-sha2-nistp256 {text}", SK_ECDSA, ""):
        with pytest.raises(KeyFileError, match="not a public key line of type"):
            parse_public_line(line)
