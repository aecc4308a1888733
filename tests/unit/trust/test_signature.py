"""A command counts only when an allowed key signed exactly these bytes, for this purpose."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deploykit.errors import KeyFileError, SignatureError, UsageError
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.signature import HEADER, SigningKey, body_digest, sign, verify, verify_blob
from deploykit.trust.sshsig import decode_header, encode_blob, encode_header, signed_bytes
from deploykit.wire.frame import Frame
from tests.support.keys import fixed_key

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
BODY = b'{"type":"deploykit.deploy.requested.v1","id":"1","audience":["web1"]}'

KEY = fixed_key(1)
OTHER = fixed_key(2)


def allowed(*lines: str, revoked: str = "") -> AllowedSigners:
    return AllowedSigners.parse("\n".join(lines), revoked=revoked)


ONE = allowed(f"ops@example.com {KEY.public_openssh}")


def signed(body: bytes = BODY, key: SigningKey = KEY) -> Frame:
    return sign(Frame({"content-type": "application/cloudevents+json"}, body), key)


def test_who_signed_is_told_with_key_and_principal() -> None:
    signer = verify(signed(), ONE, NOW)
    assert signer.fingerprint == KEY.fingerprint
    assert signer.is_principal("ops@example.com")
    assert not signer.is_principal("root@example.com")
    assert str(signer) == f"ops@example.com ({KEY.fingerprint})"


def test_signing_adds_one_header_and_leaves_the_rest() -> None:
    frame = signed()
    assert frame.body == BODY
    assert {k: v for k, v in frame.headers.items() if k != HEADER} == {"content-type": "application/cloudevents+json"}
    assert frame.headers[HEADER].isascii()
    assert not set(frame.headers[HEADER]) & set(":\\\r\n\0 ")  # needs no escape in any STOMP version


def test_signing_again_replaces_the_signature() -> None:
    frame = sign(signed(key=OTHER), KEY)
    assert verify(frame, ONE, NOW).fingerprint == KEY.fingerprint


# -- threat 1: forged command -----------------------------------------------------------------------------------------


def test_threat_1_unsigned_is_refused() -> None:
    with pytest.raises(SignatureError, match="not signed"):
        verify(Frame({}, BODY), ONE, NOW)


@pytest.mark.parametrize("value", ["", " ", "null", "AAAA"])
def test_threat_1_an_empty_or_bogus_signature_is_refused(value: str) -> None:
    with pytest.raises(SignatureError):
        verify(Frame({HEADER: value}, BODY), ONE, NOW)


def test_threat_1_a_key_that_is_not_listed_is_refused() -> None:
    with pytest.raises(SignatureError, match="not among the allowed"):
        verify(signed(key=OTHER), ONE, NOW)


def test_threat_1_nobody_is_trusted_by_default() -> None:
    with pytest.raises(SignatureError, match="not among the allowed"):
        verify(signed(), AllowedSigners(), NOW)


def test_threat_1_a_listed_key_named_over_another_keys_signature_is_refused() -> None:
    # The key named in the blob is only a claim: the mathematics must be done with it.
    stolen = encode_blob(KEY.public_blob, decode_header(signed(key=OTHER).headers[HEADER])[-64:])
    with pytest.raises(SignatureError, match="does not fit"):
        verify_blob(BODY, stolen, ONE, NOW)


def test_threat_1_every_single_flipped_bit_of_a_signature_is_refused() -> None:
    blob = decode_header(signed().headers[HEADER])
    for bit in range(len(blob) * 8):
        changed = bytearray(blob)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SignatureError):
            verify_blob(BODY, bytes(changed), ONE, NOW)


def test_threat_1_every_single_flipped_bit_of_the_header_is_refused() -> None:
    # The header's text too: base64 has spare bits in its last character that a lax decoder ignores.
    value = signed().headers[HEADER].encode()
    for bit in range(len(value) * 8):
        changed = bytearray(value)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SignatureError):
            verify(Frame({HEADER: changed.decode("latin-1")}, BODY), ONE, NOW)


def test_threat_1_every_other_last_character_of_the_header_is_refused() -> None:
    value = signed().headers[HEADER]
    assert value.endswith("=")
    for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/":
        if last != value[-2]:
            with pytest.raises(SignatureError):
                verify(Frame({HEADER: value[:-2] + last + "="}, BODY), ONE, NOW)


def test_threat_1_a_reserved_field_that_holds_something_is_refused() -> None:
    # It is not covered by the signature and ssh-keygen ignores it: room for a second signature of the same message.
    blob = KEY.sign_body(BODY)
    at = blob.index(b"\0\0\0\x06sha512") - 4
    assert blob[at : at + 4] == bytes(4)
    with pytest.raises(SignatureError, match="reserved"):
        verify_blob(BODY, blob[:at] + b"\0\0\0\1x" + blob[at + 4 :], ONE, NOW)


def test_threat_1_every_single_flipped_bit_of_the_body_is_refused() -> None:
    value = signed().headers[HEADER]
    for bit in range(len(BODY) * 8):
        changed = bytearray(BODY)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SignatureError, match="does not fit"):
            verify(Frame({HEADER: value}, bytes(changed)), ONE, NOW)


@pytest.mark.parametrize("body", [BODY + b"\n", BODY + b"\0", BODY[:-1], b" " + BODY, b""])
def test_threat_1_a_body_that_grew_or_shrank_is_refused(body: bytes) -> None:
    with pytest.raises(SignatureError, match="does not fit"):
        verify(Frame(signed().headers, body), ONE, NOW)


def test_threat_1_the_twin_of_a_signature_is_refused() -> None:
    """S + L is the same number modulo the group's order L: accepting it would give one message two signatures."""
    blob = decode_header(signed().headers[HEADER])
    order = 2**252 + 27742317777372353535851937790883648493
    s = int.from_bytes(blob[-32:], "little") + order
    twin = blob[:-32] + s.to_bytes(32, "little")
    with pytest.raises(SignatureError, match="does not fit"):
        verify_blob(BODY, twin, ONE, NOW)


def test_headers_can_change_on_the_way_without_harm_to_the_signature() -> None:
    frame = signed()
    headers = {**frame.headers, "message-id": "17", "destination": "/topic/elsewhere", "subject": "changed"}
    assert verify(Frame(headers, BODY), ONE, NOW).fingerprint == KEY.fingerprint


# -- expired, revoked, wrong purpose ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "at", "counts"),
    [
        ('valid-after="20260301120000Z"', NOW, True),
        ('valid-after="20260301120000Z"', NOW - SECOND, False),
        ('valid-before="20260301120000Z"', NOW, True),
        ('valid-before="20260301120000Z"', NOW + SECOND, False),
        ('valid-after="20260301120000Z",valid-before="20260301120001Z"', NOW + SECOND, True),
    ],
)
def test_threat_1_a_key_counts_from_valid_after_to_valid_before(options: str, at: datetime, counts: bool) -> None:
    signers = allowed(f"ops {options} {KEY.public_openssh}")
    if counts:
        verify(signed(), signers, at)
    else:
        with pytest.raises(SignatureError, match="valid only"):
            verify(signed(), signers, at)


def test_threat_1_a_revoked_key_is_refused_whatever_the_lines_say() -> None:
    signers = allowed(f"ops {KEY.public_openssh}", revoked=f"# lost\n{KEY.public_openssh} laptop\n")
    with pytest.raises(SignatureError, match="revoked"):
        verify(signed(), signers, NOW)


def test_revoking_one_key_leaves_the_others() -> None:
    signers = allowed(f"ops {KEY.public_openssh}", revoked=OTHER.public_openssh)
    verify(signed(), signers, NOW)


def test_threat_1_a_key_for_another_namespace_is_refused() -> None:
    with pytest.raises(SignatureError, match="namespace"):
        verify(signed(), allowed(f'ops namespaces="git,file" {KEY.public_openssh}'), NOW)


def test_a_signature_for_another_namespace_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # Made as `ssh-keygen -Y sign -n git` would: somebody's signed commit must not become a deploy.
    monkeypatch.setattr("deploykit.trust.sshsig.NAMESPACE", "git")
    blob = KEY.sign_body(BODY)
    monkeypatch.undo()
    with pytest.raises(SignatureError, match="namespace 'git'"):
        verify_blob(BODY, blob, ONE, NOW)


def test_threat_1_the_namespace_field_alone_does_not_make_a_signature_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploykit.trust.sshsig.NAMESPACE", "deploycat")
    signs = signed_bytes(BODY).replace(b"deploykit", b"deploycat")
    monkeypatch.setattr("deploykit.trust.signature.signed_bytes", lambda _body: signs)
    blob = KEY.sign_body(BODY).replace(b"deploycat", b"deploykit")
    monkeypatch.undo()
    with pytest.raises(SignatureError, match="does not fit"):
        verify_blob(BODY, blob, ONE, NOW)


def test_lines_that_do_not_count_lend_no_principals() -> None:
    signers = allowed(
        f"ops {KEY.public_openssh}",
        f'root valid-before="20260101Z" {KEY.public_openssh}',
        f'git namespaces="git" {KEY.public_openssh}',
        f"dev {KEY.public_openssh}",
    )
    signer = verify(signed(), signers, NOW)
    assert [name for name in ("ops", "root", "git", "dev") if signer.is_principal(name)] == ["ops", "dev"]


def test_now_without_a_zone_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(UsageError, match="zone"):
        verify(signed(), ONE, NOW.replace(tzinfo=None))


# -- the digest for ids ------------------------------------------------------------------------------------------------


def test_the_digest_names_the_body_and_nothing_else() -> None:
    assert body_digest(BODY) == body_digest(bytes(BODY))
    assert body_digest(BODY) != body_digest(BODY + b" ")
    assert len(body_digest(b"")) == 32


# -- private keys ------------------------------------------------------------------------------------------------------


def test_a_key_survives_the_way_to_a_file_and_back() -> None:
    again = SigningKey.from_openssh(KEY.to_openssh())
    assert again.public_openssh == KEY.public_openssh
    assert again.sign_body(BODY) == KEY.sign_body(BODY)


def test_a_key_with_a_passphrase_survives_too() -> None:
    data = KEY.to_openssh("open sesame")
    assert SigningKey.from_openssh(data, "open sesame").fingerprint == KEY.fingerprint
    assert SigningKey.from_openssh(data, b"open sesame").fingerprint == KEY.fingerprint


def test_a_missing_passphrase_is_asked_for() -> None:
    with pytest.raises(KeyFileError, match="protected by a passphrase"):
        SigningKey.from_openssh(KEY.to_openssh("open sesame"))


def test_a_passphrase_that_is_not_needed_is_not_asked_for() -> None:
    with pytest.raises(KeyFileError, match="has no passphrase"):
        SigningKey.from_openssh(SigningKey.generate().to_openssh(), "open sesame")


def test_a_wrong_passphrase_is_named_as_a_possible_cause_and_not_shown() -> None:
    with pytest.raises(KeyFileError, match="passphrase is wrong") as caught:
        SigningKey.from_openssh(KEY.to_openssh("open sesame"), "canary-4711")
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_passphrase_without_bcrypt_names_the_extra() -> None:
    # In a process of its own: cryptography looks for bcrypt when it is imported.
    code = """
import sys
sys.modules["bcrypt"] = None
from deploykit.errors import KeyFileError
from deploykit.trust.signature import SigningKey
from tests.support.keys import fixed_key
for use in (lambda: SigningKey.from_openssh(sys.stdin.buffer.read(), "open sesame"),
            lambda: SigningKey.generate().to_openssh("open sesame")):
    try:
        use()
    except KeyFileError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input=KEY.to_openssh("open sesame"), capture_output=True, check=True
    )
    line = "a private key with a passphrase needs bcrypt (pip install 'deploykit[keys]')"
    assert done.stdout.decode().splitlines() == [line, line]


def _foreign_keys() -> list[bytes]:
    openssh, plain = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    return [
        rsa.generate_private_key(65537, 2048).private_bytes(pem, openssh, plain),
        ec.generate_private_key(ec.SECP256R1()).private_bytes(pem, openssh, plain),
        Ed25519PrivateKey.generate().private_bytes(pem, serialization.PrivateFormat.PKCS8, plain),
        b"",
        b"not a key",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        KEY.to_openssh()[:-100] + b"\n-----END OPENSSH PRIVATE KEY-----\n",
        KEY.public_openssh.encode(),
        b"x" * (1 << 17),
    ]


@pytest.mark.parametrize("number", range(9))
def test_what_is_not_an_openssh_ed25519_private_key_is_refused_with_the_way_out(number: int) -> None:
    with pytest.raises(KeyFileError) as caught:
        SigningKey.from_openssh(_foreign_keys()[number])
    assert caught.value.problem.startswith("the private key")


def test_the_secret_shows_nowhere() -> None:
    secret = KEY._key.private_bytes_raw()
    shown = f"{KEY} {KEY!r} {[KEY]} {KEY.fingerprint} {KEY.public_openssh} {dir(KEY)}"
    assert secret.hex() not in shown
    assert repr(secret)[2:-1] not in shown
    assert repr(KEY) == f"<SigningKey {KEY.fingerprint}>"
    assert not hasattr(KEY, "__dict__")
    with pytest.raises((TypeError, AttributeError)):
        pickle.dumps(KEY)
    assert secret.hex() not in repr(copy.copy(KEY))


def test_a_header_value_is_what_ssh_keygen_would_armor() -> None:
    value = signed().headers[HEADER]
    assert encode_header(decode_header(value)) == value
    assert len(value) == 240
