"""What we accept of security keys and passkeys, ssh-keygen accepts. It looks at less: each difference has a test here.

No hardware was tried: the signer is written from PROTOCOL.u2f and the WebAuthn standard.
"""

from __future__ import annotations

from datetime import UTC, datetime

import attrs
import pytest

from deploykit.errors import SignatureError
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.keyformat import SK_ECDSA, SK_ED25519, ssh_string
from deploykit.trust.signature import verify_blob
from deploykit.trust.signaturerules import SignatureRules
from deploykit.trust.sshsig import WEBAUTHN, armor, decode_blob, decode_header, encode_parts
from tests.support.securitykeys import BrowserSignature, SoftwarePasskey, SoftwareSecurityKey, browser_signatures
from tests.support.sshkeygen import SshKeygen

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
BODY = b'{"specversion":"1.0","id":"1"}'
ORIGIN, RP_ID = "https://deploy.example.org", "deploy.example.org"
RULES = SignatureRules(origins=frozenset([ORIGIN]), rp_ids=frozenset([RP_ID]))
KINDS = [SK_ED25519, SK_ECDSA, WEBAUTHN]


@pytest.fixture(scope="module")
def keygen(tmp_path_factory: pytest.TempPathFactory) -> SshKeygen:
    return SshKeygen(tmp_path_factory.mktemp("ssh-keygen"))


def key_of(kind: str) -> SoftwareSecurityKey:
    return SoftwarePasskey(ORIGIN, RP_ID) if kind == WEBAUTHN else SoftwareSecurityKey(kind)


def line_of(key: SoftwareSecurityKey) -> str:
    return f"ops {key.public_openssh}\n"


def we_accept(key: SoftwareSecurityKey, blob: bytes, body: bytes = BODY) -> bool:
    try:
        verify_blob(body, blob, attrs.evolve(AllowedSigners.parse(line_of(key)), rules=RULES), NOW)
    except SignatureError:
        return False
    return True


def it_accepts(keygen: SshKeygen, key: SoftwareSecurityKey, blob: bytes, body: bytes = BODY) -> bool:
    return keygen.verify(body, armor(blob), line_of(key), principal="ops").returncode == 0


@pytest.mark.parametrize("kind", KINDS)
def test_ssh_keygen_accepts_each_kind_and_names_the_same_key(keygen: SshKeygen, kind: str) -> None:
    key = key_of(kind)
    for body in (b"", BODY, bytes(range(256)) * 64):
        blob = key.sign_body(body)
        assert we_accept(key, blob, body)
        done = keygen.verify(body, armor(blob), line_of(key), principal="ops")
        assert (done.returncode, key.fingerprint in done.stdout.decode()) == (0, True), done.stderr


@pytest.mark.parametrize("made", browser_signatures(), ids=["verified", "touched"])
def test_ssh_keygen_accepts_what_a_browser_made(keygen: SshKeygen, made: BrowserSignature) -> None:
    done = keygen.verify(made.body, armor(decode_header(made.header)), f"ops {made.public_openssh}\n", principal="ops")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_threat_1_one_flipped_bit_in_each_byte_is_refused_by_both(keygen: SshKeygen, kind: str) -> None:
    key = key_of(kind)
    blob = key.sign_body(BODY)
    for at in range(len(blob)):
        changed = bytearray(blob)
        changed[at] ^= 1 << at % 8
        assert not we_accept(key, bytes(changed)), at
        assert not it_accepts(keygen, key, bytes(changed)), at


@pytest.mark.parametrize("kind", KINDS)
def test_threat_1_another_body_is_refused_by_both(keygen: SshKeygen, kind: str) -> None:
    key = key_of(kind)
    blob = key.sign_body(BODY)
    for body in (BODY[:-1], BODY + b" ", b"", BODY.replace(b"1", b"2")):
        assert not we_accept(key, blob, body)
        assert not it_accepts(keygen, key, blob, body)


@pytest.mark.parametrize("kind", [SK_ECDSA, WEBAUTHN])
@pytest.mark.parametrize("high", [False, True])
def test_threat_44_either_s_is_accepted_by_both(keygen: SshKeygen, kind: str, high: bool) -> None:
    key = key_of(kind)
    key.high_s = high
    blob = key.sign_body(BODY)
    assert we_accept(key, blob)
    assert it_accepts(keygen, key, blob)


@pytest.mark.parametrize("kind", KINDS)
def test_a_touch_is_asked_for_by_us_alone(keygen: SshKeygen, kind: str) -> None:
    key = key_of(kind)
    key.presence = False
    blob = key.sign_body(BODY)
    assert not we_accept(key, blob)
    assert it_accepts(keygen, key, blob)


def test_threat_43_page_and_site_are_looked_at_by_us_alone(keygen: SshKeygen) -> None:
    for key in (SoftwarePasskey("https://evil.net", RP_ID), SoftwarePasskey(ORIGIN, "evil.net")):
        blob = key.sign_body(BODY)
        assert not we_accept(key, blob)
        assert it_accepts(keygen, key, blob)


@pytest.mark.parametrize(
    "tail", [',"crossOrigin":true}', ',"origin":"https://evil.net"}', ',"challenge":"AAAA"}', "", " not JSON"]
)
def test_threat_43_the_rest_of_client_data_is_looked_at_by_us_alone(keygen: SshKeygen, tail: str) -> None:
    key = SoftwarePasskey(ORIGIN, RP_ID)
    key.client_data_tail = tail
    blob = key.sign_body(BODY)
    assert not we_accept(key, blob)
    assert it_accepts(keygen, key, blob)


def test_threat_43_another_challenge_is_refused_by_both(keygen: SshKeygen) -> None:
    key = SoftwarePasskey(ORIGIN, RP_ID)
    key.challenge = b"a login"
    blob = key.sign_body(BODY)
    assert not we_accept(key, blob)
    assert not it_accepts(keygen, key, blob)


@pytest.mark.parametrize("kind", [SK_ED25519, SK_ECDSA])
def test_what_a_key_was_made_for_is_looked_at_by_us_alone(keygen: SshKeygen, kind: str) -> None:
    key = SoftwareSecurityKey(kind, application=RP_ID)
    blob = key.sign_body(BODY)
    assert not we_accept(key, blob)
    assert it_accepts(keygen, key, blob)


def test_extensions_are_accepted_by_both(keygen: SshKeygen) -> None:
    key = SoftwarePasskey(ORIGIN, RP_ID)
    key.extensions = bytes.fromhex("a16b6372656450726f7465637402")
    blob = key.sign_body(BODY)
    assert we_accept(key, blob)
    assert it_accepts(keygen, key, blob)


def test_a_number_with_a_needless_zero_is_refused_by_us_alone(keygen: SshKeygen) -> None:
    """Else one signature could be written in many ways."""
    key = key_of(SK_ECDSA)
    parts = decode_blob(key.sign_body(BODY))
    longer = ssh_string(b"\0" + parts.signature[4 : 4 + parts.signature[3]]) + parts.signature[4 + parts.signature[3] :]
    tail = bytes([parts.flags]) + parts.counter.to_bytes(4, "big")
    blob = encode_parts(key.public_blob, ssh_string(SK_ECDSA.encode()) + ssh_string(longer) + tail)
    assert not we_accept(key, blob)
    assert it_accepts(keygen, key, blob)
