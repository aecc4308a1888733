"""Signatures with a certificate: the key counts as what its authority's lines let pass, and as nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from deploykit.errors import KeyFileError, KeyNotTrusted, SignatureError, SignatureNotEnough
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.keyformat import public_line, ssh_string
from deploykit.trust.signature import (
    HEADER,
    Signer,
    add_signature,
    copy_digest,
    decode_headers,
    sign,
    verify,
    verify_blob,
)
from deploykit.trust.signaturerules import SignatureRules
from deploykit.trust.sshsig import encode_header
from deploykit.wire.frame import Frame
from tests.support.certificates import AUTHORITY, CertificateMaker, certify, krl, krl_of, packed
from tests.support.keys import fixed_key
from tests.support.securitykeys import SoftwarePasskey, SoftwareSecurityKey

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
BODY = b"body"
KEY = fixed_key(1)
CA = AUTHORITY.public_openssh
MAKER = CertificateMaker(key=KEY.public_blob, principals=packed("web1", "web2"))


def signer_of(allowed: AllowedSigners | str, maker: CertificateMaker = MAKER, now: datetime = NOW) -> Signer:
    trusted = AllowedSigners.parse(allowed) if isinstance(allowed, str) else allowed
    return verify_blob(BODY, KEY.with_certificate(maker.make()).sign_body(BODY), trusted, now)


def refused(allowed: AllowedSigners | str, maker: CertificateMaker = MAKER) -> str:
    with pytest.raises(SignatureError) as caught:
        signer_of(allowed, maker)
    return str(caught.value)


def test_one_line_of_an_authority_serves_every_node() -> None:
    """For 50,000 nodes: the principals of a certificate count, never the patterns of the line."""
    allowed = AllowedSigners.parse(f'* cert-authority,namespaces="deploykit" {CA}')
    for name in ("web1", "web2"):
        assert signer_of(allowed).is_principal(name)
    for name in ("web3", "web", "*", ""):
        assert not signer_of(allowed).is_principal(name)
    assert signer_of(allowed) == Signer(
        fingerprint=KEY.fingerprint,
        principals=(("web1", "web2"),),
        certificate="key id 'ann@laptop' serial 7",
    )


def test_each_line_of_an_authority_lets_pass_the_names_that_it_matches() -> None:
    signer = signer_of(f"web1,db* cert-authority {CA}\n*,!web1 cert-authority {CA}\nweb1 cert-authority {CA}\n")
    assert signer.principals == (("web1",), ("web2",))


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (f"* {CA}", "no authority among the allowed signers"),
        (f"* {KEY.public_openssh}", "no authority among the allowed signers"),
        (f"* cert-authority {KEY.public_openssh}", "no authority among the allowed signers"),
        (f"db* cert-authority {CA}", "line 1 allows none of its principals"),
        (f'* cert-authority,namespaces="git" {CA}', "line 1 does not allow the key for namespace"),
        (f'* cert-authority,valid-before="20260301Z" {CA}', "line 1 was valid only before"),
    ],
)
def test_a_certificate_counts_by_an_authoritys_line_alone(lines: str, says: str) -> None:
    assert says in refused(lines)


def test_an_authoritys_line_lets_it_sign_no_message_itself() -> None:
    with pytest.raises(KeyNotTrusted, match="not among the allowed signers"):
        verify_blob(BODY, AUTHORITY.sign_body(BODY), AllowedSigners.parse(f"* cert-authority {CA}"), NOW)


def test_a_certificate_that_another_key_signed_is_refused() -> None:
    """It names the authority; the signature in it is by somebody else."""
    forged = MAKER.make()
    signature = ssh_string(packed("ssh-ed25519", fixed_key(66)._key.sign(forged[: -4 - 4 - 11 - 4 - 64])))
    forged = forged[: -len(signature)] + signature
    with pytest.raises(SignatureError, match="was not signed by the authority"):
        verify_blob(
            BODY,
            KEY.with_certificate(forged).sign_body(BODY),
            AllowedSigners.parse(f"* cert-authority {CA}"),
            NOW,
        )


def test_a_certificate_lends_its_names_to_its_own_key_alone() -> None:
    theirs = certify(fixed_key(66).sign_body(BODY), MAKER.make())
    with pytest.raises(SignatureError, match="does not fit the message"):
        verify_blob(BODY, theirs, AllowedSigners.parse(f"* cert-authority {CA}"), NOW)


def test_a_certificate_that_was_good_counts_no_longer_once_its_time_is_over() -> None:
    """A good signature of an authority is remembered; nothing else of a certificate is."""
    allowed = AllowedSigners.parse(f"* cert-authority {CA}")
    maker = attrs.evolve(MAKER, before=int(NOW.timestamp()) + 1)
    assert signer_of(allowed, maker).is_principal("web1")
    with pytest.raises(KeyNotTrusted, match="was valid only before"):
        signer_of(allowed, maker, NOW + timedelta(seconds=1))
    revoked = AllowedSigners.parse(f"* cert-authority {CA}", revoked=AUTHORITY.public_openssh)
    assert "its authority SHA256:" in refused(revoked, maker)
    assert "no authority" in refused("", maker)


@pytest.mark.parametrize(
    ("revoked", "says"),
    [
        (KEY.public_openssh, "is revoked"),
        (AUTHORITY.public_openssh, "its authority"),
        (f"# ann's old one\n{public_line(attrs.evolve(MAKER, serial=1).make())} ann\n", "is revoked"),
        (krl((2, packed(KEY.public_blob))), "is revoked"),
        (krl(krl_of(AUTHORITY.public_blob, (0x20, (7).to_bytes(8, "big")))), "revoked by its serial"),
        (krl(krl_of(b"", (0x23, packed("ann@laptop")))), "revoked by its key id"),
    ],
)
def test_what_is_revoked_counts_for_nothing(revoked: str | bytes, says: str) -> None:
    assert says in refused(AllowedSigners.parse(f"* cert-authority {CA}", revoked=revoked))


def test_a_binary_list_revokes_plain_keys_too() -> None:
    allowed = AllowedSigners.parse(f"ops {KEY.public_openssh}", revoked=krl((2, packed(KEY.public_blob))))
    with pytest.raises(KeyNotTrusted, match="is revoked"):
        verify_blob(BODY, KEY.sign_body(BODY), allowed, NOW)


def test_a_list_of_revoked_keys_that_cannot_be_read_refuses_everything() -> None:
    for data in (b"SSHKRL\n\0\0\0\0\x09", b"\xff\xfe", b"ssh-ed25519 \xff"):
        with pytest.raises(KeyFileError):
            AllowedSigners.parse(f"ops {KEY.public_openssh}", revoked=data)


# -- security keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [SoftwareSecurityKey.ed25519, SoftwareSecurityKey.ecdsa])
def test_a_security_key_may_have_a_certificate_and_must_be_touched(make: Any) -> None:
    held, idle = make(), make(presence=False)
    allowed = AllowedSigners.parse(f"* cert-authority {CA}")
    # no-touch-required in a certificate changes nothing here
    maker = attrs.evolve(MAKER, key=held.public_blob, extensions=packed("no-touch-required", ""))
    signer = verify_blob(BODY, certify(held.sign_body(BODY), maker.make()), allowed, NOW)
    assert (signer.fingerprint, signer.present, signer.key_type) == (held.fingerprint, True, held.key_type)
    with pytest.raises(SignatureNotEnough, match="touched"):
        verify_blob(BODY, certify(idle.sign_body(BODY), maker.make()), allowed, NOW)


def test_a_certificate_with_verify_required_needs_a_pin_or_a_finger() -> None:
    allowed = AllowedSigners.parse(f"* cert-authority {CA}")
    critical = packed("verify-required", "")
    touched, known = SoftwareSecurityKey.ed25519(), SoftwareSecurityKey.ed25519(verified=True)
    certificate = attrs.evolve(MAKER, key=known.public_blob, critical=critical).make()
    assert verify_blob(BODY, certify(known.sign_body(BODY), certificate), allowed, NOW).verified
    with pytest.raises(SignatureNotEnough, match="verify-required"):
        verify_blob(BODY, certify(touched.sign_body(BODY), certificate), allowed, NOW)
    assert "verify-required" in refused(allowed, attrs.evolve(MAKER, critical=critical))


def test_a_passkey_may_have_a_certificate() -> None:
    passkey = SoftwarePasskey()
    rules = SignatureRules(origins=frozenset({passkey.origin}), rp_ids=frozenset({passkey.application}))
    allowed = attrs.evolve(AllowedSigners.parse(f"* cert-authority {CA}"), rules=rules)
    certificate = attrs.evolve(MAKER, key=passkey.public_blob).make()
    signed = certify(passkey.sign_body(BODY), certificate)
    assert verify_blob(BODY, signed, allowed, NOW).origin == passkey.origin
    with pytest.raises(SignatureNotEnough, match=r"trust\.rp_ids"):
        verify_blob(BODY, signed, AllowedSigners.parse(f"* cert-authority {CA}"), NOW)


@pytest.mark.parametrize("make", [SoftwareSecurityKey.ed25519, SoftwareSecurityKey.ecdsa])
def test_an_authority_may_be_a_security_key_that_was_touched(make: Any) -> None:
    for presence, application, says in ((True, "ssh:", ""), (False, "ssh:", "touched"), (True, "x.org", "'x.org'")):
        authority = make(presence=presence, application=application)
        allowed = AllowedSigners.parse(f"* cert-authority {authority.public_openssh}")
        maker = attrs.evolve(MAKER, authority=authority)
        if not says:
            assert signer_of(allowed, maker).is_principal("web1")
        else:
            assert says in refused(allowed, maker)


# -- a key is named without its certificate ----------------------------------------------------------------------------


def test_a_key_with_its_certificate_and_without_is_one_key() -> None:
    """It signs once, claims ids once, and a reply answers the message whatever certificate came with it."""
    certified = KEY.with_certificate(MAKER.make())
    plain, with_it = sign(Frame({}, BODY), KEY), sign(Frame({}, BODY), certified)
    assert copy_digest(plain) == copy_digest(with_it)
    assert len(decode_headers(add_signature(plain, certified).headers[HEADER])) == 1
    both = Frame({HEADER: f"{plain.headers[HEADER]},{with_it.headers[HEADER]}"}, BODY)
    allowed = AllowedSigners.parse(f"ops {KEY.public_openssh}\n* cert-authority {CA}")
    with pytest.raises(SignatureError, match="one key signed twice"):
        verify(both, allowed, NOW)
    assert verify(with_it, allowed, NOW).is_principal("web1")
    assert not verify(with_it, allowed, NOW).is_principal("ops")


def test_two_people_with_certificates_sign_one_message() -> None:
    other = fixed_key(2)
    certified = other.with_certificate(attrs.evolve(MAKER, key=other.public_blob, principals=packed("bob")).make())
    frame = add_signature(sign(Frame({}, BODY), KEY.with_certificate(MAKER.make())), certified)
    signers = verify(frame, AllowedSigners.parse(f"* cert-authority {CA}"), NOW)
    assert {name for patterns in signers.principals for name in patterns} == {"web1", "web2", "bob"}


def test_a_signature_with_a_certificate_that_is_too_long_is_refused() -> None:
    maker = attrs.evolve(MAKER, principals=packed(*(f"node-{number:020}" for number in range(200))))
    value = encode_header(KEY.with_certificate(maker.make()).sign_body(BODY))
    with pytest.raises(SignatureError, match="too long"):
        verify(Frame({HEADER: value}, BODY), AllowedSigners.parse(f"* cert-authority {CA}"), NOW)
