"""Certificates and revocation: our verdicts are ssh-keygen's on a generated matrix; the stricter ones are listed."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploykit.errors import KeyFileError, SignatureError
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.certificate import parse_certificate
from deploykit.trust.keyfiles import load_signing_key
from deploykit.trust.keyformat import public_line
from deploykit.trust.krl import key_id_line, parse_krl, serial_line
from deploykit.trust.signature import Signer, verify_blob
from deploykit.trust.sshsig import armor, dearmor
from tests.support.certificates import AUTHORITY, FOREVER, CertificateMaker, certify, packed
from tests.support.keys import fixed_key
from tests.support.securitykeys import SoftwareSecurityKey
from tests.support.sshkeygen import SshKeygen

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
AT = "20260301120000Z"
SECOND = int(NOW.timestamp())
BODY = b'{"specversion":"1.0","id":"1"}'
KEY = fixed_key(1)
OTHER = fixed_key(2)
CA_LINE = AUTHORITY.public_openssh
EXAMPLES = 5000 if os.environ.get("DEPLOYKIT_FULL_SWEEP") else 250
MAKER = CertificateMaker(key=KEY.public_blob, principals=packed("ops"))


@pytest.fixture(scope="module")
def keygen(tmp_path_factory: pytest.TempPathFactory) -> SshKeygen:
    return SshKeygen(tmp_path_factory.mktemp("ssh-keygen"))


def we_say(blob: bytes, allowed: str, principal: str, revoked: str | bytes = "", now: datetime = NOW) -> Signer | str:
    """The signer when we believe `principal` signed; otherwise why not."""
    try:
        signer = verify_blob(BODY, blob, AllowedSigners.parse(allowed, revoked=revoked), now)
    except (KeyFileError, SignatureError) as error:
        return str(error)
    return signer if signer.is_principal(principal) else "somebody else"


def they_say(keygen: SshKeygen, blob: bytes, allowed: str, principal: str, revoked: str | bytes = "") -> bool:
    return keygen.verify(BODY, armor(blob), allowed, principal=principal, at=AT, revoked=revoked).returncode == 0


# -- both ways, with certificates of ssh-keygen itself ---------------------------------------------------------------


@pytest.mark.parametrize("authority", ["ed25519", "ecdsa"])
def test_a_certificate_of_ssh_keygen_signs_as_its_principals(tmp_path: Path, authority: str) -> None:
    keygen = SshKeygen(tmp_path)
    ca, key = keygen.generate("ca", kind=authority), keygen.generate("key")
    done = keygen.run("-q", "-s", ca, "-I", "web1's key", "-n", "web1,web2", "-z", "42", f"{key}.pub")
    assert done.returncode == 0, done.stderr
    blob = dearmor(keygen.sign(Path(f"{key}-cert.pub"), BODY))
    line = f'* cert-authority,namespaces="deploykit" {(tmp_path / "ca.pub").read_text()}'
    assert they_say(keygen, blob, line, "web1")
    signer = we_say(blob, line, "web1", now=datetime.now(UTC))
    if authority != "ed25519":  # one of the stricter verdicts
        assert "no authority among the allowed signers" in str(signer)
        assert [note for note in AllowedSigners.parse(line).unused if "line 1: " in note]
        return
    assert isinstance(signer, Signer)
    assert signer.principals == (("web1", "web2"),)
    assert not signer.is_principal("web3")
    assert signer.certificate == 'key id "web1\'s key" serial 42'
    assert signer.fingerprint == load_signing_key(key).fingerprint


def test_ssh_keygen_accepts_what_a_key_signs_with_its_certificate(keygen: SshKeygen) -> None:
    signing = KEY.with_certificate(MAKER.make())
    blob = signing.sign_body(BODY)
    assert they_say(keygen, blob, f"* cert-authority {CA_LINE}\n", "ops")
    assert isinstance(we_say(blob, f"* cert-authority {CA_LINE}\n", "ops"), Signer)
    assert (signing.fingerprint, signing.public_blob) == (KEY.fingerprint, KEY.public_blob)


def test_a_key_does_not_sign_with_the_certificate_of_another() -> None:
    with pytest.raises(KeyFileError, match="is for key SHA256:"):
        OTHER.with_certificate(MAKER.make())


# -- the matrix ------------------------------------------------------------------------------------------------------

SECURITY_KEYS = [SoftwareSecurityKey.ed25519(), SoftwareSecurityKey.ecdsa()]

_CERTIFICATES = st.builds(
    CertificateMaker,
    key=st.sampled_from([KEY.public_blob, KEY.public_blob, *(key.public_blob for key in SECURITY_KEYS)]),
    authority=st.sampled_from([AUTHORITY, AUTHORITY, AUTHORITY, OTHER]),
    serial=st.sampled_from([0, 1, 5, FOREVER]),
    type=st.sampled_from([1, 1, 1, 1, 2]),
    key_id=st.sampled_from(["ann", "bob", ""]),
    principals=st.sampled_from(
        [packed("ops"), packed("ops"), packed("dev", "ops"), packed("dev"), packed("*"), packed("o*", "dev"), b""]
    ),
    after=st.sampled_from([0, 0, 0, SECOND - 1, SECOND, SECOND + 1]),
    before=st.sampled_from([FOREVER, FOREVER, FOREVER, SECOND, SECOND + 1]),
    critical=st.sampled_from([b"", b"", b"", packed("verify-required", ""), packed("force-command", packed("x"))]),
    extensions=st.sampled_from([b"", packed("permit-pty", ""), packed("no-touch-required", "")]),
)
_PUBS = [CA_LINE, CA_LINE, CA_LINE, KEY.public_openssh, OTHER.public_openssh]
_LINES = st.tuples(
    st.sampled_from(["ops", "*", "*", "o?s,!dev", "dev", "*,!ops", "o*"]),
    st.just(" "),
    st.sampled_from(
        [
            "cert-authority ",
            "cert-authority ",
            "Cert-Authority ",
            'cert-authority,namespaces="deploykit" ',
            'namespaces="git",cert-authority ',
            f'cert-authority,valid-before="{AT}" ',
            'cert-authority,valid-after="20260301120001Z" ',
            "",
        ]
    ),
    st.sampled_from(_PUBS),
    st.just("\n"),
).map("".join)
_SPECIFICATIONS = [
    [serial_line(5)],
    [serial_line(1, FOREVER)],
    [serial_line(2, 4), serial_line(6, 9), key_id_line("bob")],
    [key_id_line("ann")],
    [f"key: {KEY.public_openssh}"],
    [f"sha256: {KEY.public_openssh}"],
    [f"sha1: {KEY.public_openssh}"],
    [f"key: {CA_LINE}"],
    [f"sha256: {CA_LINE}", f"sha1: {OTHER.public_openssh}"],
    [OTHER.public_openssh],
    [],
]


@pytest.fixture(scope="module")
def revocations(keygen: SshKeygen) -> list[str | bytes]:
    """Lists of each form: texts, and what ssh-keygen makes of the specifications, for our authority and for all."""
    texts: list[str | bytes] = [
        "# nothing\n",
        f"{KEY.public_openssh}\n",
        f"{CA_LINE} gone\n",
        f"{OTHER.public_openssh}\n",
        f"{public_line(MAKER.make())}\n",
        *(f"{key.public_openssh}\n" for key in SECURITY_KEYS),
    ]
    (keygen.directory / "ca.pub").write_text(CA_LINE + "\n")
    for lines in _SPECIFICATIONS:
        for authority in ("ca.pub", "none"):
            (keygen.directory / "spec").write_text("\n".join(lines) + "\n")
            done = keygen.run("-q", "-k", "-f", "krl", "-s", authority, "spec")
            assert done.returncode == 0, done.stderr
            texts.append((keygen.directory / "krl").read_bytes())
    return texts


#: Why we refuse what ssh-keygen accepts. docs/signatures.md, "Certificates", has each of them.
STRICTER = (
    "has the critical option",
    "verify-required",
    "no principal that is a plain name",
    "somebody else",  # a principal that is a pattern
)


def signature(certificate: bytes, key: bytes) -> bytes:
    """The signature of the key in a certificate, with the certificate."""
    makers: dict[bytes, Callable[[bytes], bytes]] = {KEY.public_blob: KEY.sign_body}
    makers |= {held.public_blob: held.sign_body for held in SECURITY_KEYS}
    return certify(makers[key](BODY), certificate)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    maker=_CERTIFICATES,
    lines=st.lists(_LINES, min_size=1, max_size=2),
    principal=st.sampled_from(["ops", "ops", "ops", "dev", "o*", "*"]),
    revoked=st.none() | st.integers(0, 100),
    forged=st.sampled_from([False] * 9 + [True]),
)
def test_our_verdict_on_a_certificate_is_that_of_ssh_keygen(
    keygen: SshKeygen,
    revocations: list[str | bytes],
    maker: CertificateMaker,
    lines: list[str],
    principal: str,
    revoked: int | None,
    forged: bool,
) -> None:
    certificate = maker.make()
    if forged:  # a serial that the authority did not sign
        certificate = certificate.replace(maker.serial.to_bytes(8, "big"), (77).to_bytes(8, "big"), 1)
    blob = signature(certificate, maker.key)
    gone = "" if revoked is None else revocations[revoked % len(revocations)]
    ours = we_say(blob, "".join(lines), principal, gone)
    theirs = they_say(keygen, blob, "".join(lines), principal, gone)
    if isinstance(ours, Signer):
        assert theirs, (maker, lines, gone)
    elif theirs:
        assert any(odd in ours for odd in STRICTER), (ours, maker, lines, gone)
        assert "somebody else" not in ours or principal in ("*", "o*")


def test_the_matrix_has_enough_of_both_verdicts(keygen: SshKeygen, revocations: list[str | bytes]) -> None:
    """Each list of revocations against one good certificate: some revoke it, some do not, for both the same."""
    blob = signature(attrs.evolve(MAKER, serial=5, key_id="ann").make(), KEY.public_blob)
    verdicts = []
    for gone in revocations:
        ours = isinstance(we_say(blob, f"* cert-authority {CA_LINE}\n", "ops", gone), Signer)
        assert ours is they_say(keygen, blob, f"* cert-authority {CA_LINE}\n", "ops", gone), gone
        verdicts.append(ours)
    assert 8 < sum(verdicts) < len(verdicts) - 8


# -- revocation lists, against ssh-keygen -Q -------------------------------------------------------------------------


@settings(max_examples=EXAMPLES // 20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    spans=st.lists(st.tuples(st.integers(1, 3000), st.sampled_from([0, 0, 0, 1, 2, 7, 300])), max_size=60),
    high=st.booleans(),
)
def test_a_list_revokes_the_serials_that_it_revokes_to_ssh_keygen(
    keygen: SshKeygen, spans: list[tuple[int, int]], high: bool
) -> None:
    """ssh-keygen writes lists, ranges and bitmaps, whichever is shortest; all three appear here."""
    base = FOREVER - 4000 if high else 0
    (keygen.directory / "ca.pub").write_text(CA_LINE + "\n")
    lines = [serial_line(base + first, base + first + more) for first, more in spans]
    (keygen.directory / "spec").write_text("\n".join(lines) + "\n")
    assert keygen.run("-q", "-k", "-f", "krl", "-s", "ca.pub", "spec").returncode == 0
    edges = sorted({n for first, more in spans for n in (first - 1, first, first + more, first + more + 1)} | {1, 999})
    certificates = [attrs.evolve(MAKER, serial=base + n).make() for n in edges[:80]]
    names = []
    for number, blob in enumerate(certificates):
        names.append(f"cert{number}.pub")
        (keygen.directory / names[-1]).write_text(public_line(blob) + "\n")
    answers = keygen.run("-Q", "-f", "krl", *names).stdout.decode().splitlines()
    ours = parse_krl((keygen.directory / "krl").read_bytes())
    assert [line.endswith("REVOKED") for line in answers] == [
        bool(ours.objection(parse_certificate(blob))) for blob in certificates
    ]
