"""Certificates and revocation: our verdicts are ssh-keygen's on a generated matrix; the stricter ones are listed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

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
T = TypeVar("T")
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
#: Authorities on security keys; the last one's was not touched.
SECURITY_AUTHORITIES = [
    SoftwareSecurityKey.ed25519(seed=3),
    SoftwareSecurityKey.ecdsa(seed=3),
    SoftwareSecurityKey.ed25519(seed=4, presence=False),
]


#: The values of each field of a certificate, the usual one first.
FIELDS: dict[str, tuple[Any, ...]] = {
    "key": (KEY.public_blob, *(key.public_blob for key in SECURITY_KEYS)),
    "authority": (AUTHORITY, OTHER, *SECURITY_AUTHORITIES),
    "serial": (5, 0, 1, FOREVER),
    "type": (1, 2),
    "key_id": ("ann", "bob", ""),
    "principals": tuple(
        packed(*names) for names in (["ops"], ["dev", "ops"], ["dev"], ["*"], ["o*", "dev"], ["OPS"], [])
    ),
    "after": (0, SECOND - 1, SECOND, SECOND + 1),
    "before": (FOREVER, SECOND, SECOND + 1),
    "critical": (b"", packed("verify-required", ""), packed("force-command", packed("x")), packed("x@y", "")),
    "extensions": (packed("permit-pty", ""), b"", packed("no-touch-required", "")),
}
#: Stands for the authority of the certificate; the others are strange keys, and the key in the certificate.
_ITS_AUTHORITY = "AUTHORITY"
#: The values of each part of a line, the usual one first.
LINES: dict[str, tuple[str, ...]] = {
    "principals": ("*", "ops", "o?s,!dev", "dev", "*,!ops", "o*"),
    "options": (
        "cert-authority",
        "Cert-Authority",
        'cert-authority,namespaces="deploykit"',
        'namespaces="git",cert-authority',
        f'cert-authority,valid-before="{AT}"',
        'cert-authority,valid-after="20260301120001Z"',
        "",
    ),
    "key": (_ITS_AUTHORITY, CA_LINE, KEY.public_openssh, OTHER.public_openssh),
}
PRINCIPALS = ("ops", "dev", "o*", "*")


def mostly(values: tuple[T, ...]) -> st.SearchStrategy[T]:
    """The first value five times out of six: where every field is odd, all verdicts are the same."""
    return st.sampled_from([values[0]] * 5 * (len(values) - 1) + list(values[1:]))


def line_of(parts: Mapping[str, str], maker: CertificateMaker) -> str:
    text = " ".join(parts[name] for name in LINES if parts[name])
    return text.replace(_ITS_AUTHORITY, maker.authority.public_openssh) + "\n"


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
    "it does not show that somebody touched the key",
    "somebody else",  # a principal that is a pattern
)


def signature(certificate: bytes, key: bytes) -> bytes:
    """The signature of the key in a certificate, with the certificate."""
    makers: dict[bytes, Callable[[bytes], bytes]] = {KEY.public_blob: KEY.sign_body}
    makers |= {held.public_blob: held.sign_body for held in SECURITY_KEYS}
    return certify(makers[key](BODY), certificate)


def check_verdicts(
    keygen: SshKeygen,
    maker: CertificateMaker,
    allowed: str,
    principal: str = "ops",
    revoked: str | bytes = "",
    certificate: bytes = b"",
) -> bool:
    """Hold our verdict against that of ssh-keygen; return ours."""
    blob = signature(certificate or maker.make(), maker.key)
    ours = we_say(blob, allowed, principal, revoked)
    theirs = they_say(keygen, blob, allowed, principal, revoked)
    if isinstance(ours, Signer):
        assert theirs, (maker, allowed, revoked)
    elif theirs:
        assert any(odd in ours for odd in STRICTER), (ours, maker, allowed, revoked)
        assert "somebody else" not in ours or principal in ("*", "o*")
    return isinstance(ours, Signer)


@pytest.mark.parametrize("field", [*FIELDS, *(f"line's {part}" for part in LINES), "principal"])
def test_each_value_alone_has_the_verdict_of_ssh_keygen(keygen: SshKeygen, field: str) -> None:
    """Every other field has its usual value: so the one decides."""
    usual = CertificateMaker(**{name: values[0] for name, values in FIELDS.items()})
    line = {name: values[0] for name, values in LINES.items()}
    verdicts = []
    if field in FIELDS:
        for value in FIELDS[field]:
            maker = attrs.evolve(usual, **{field: value})
            verdicts.append(check_verdicts(keygen, maker, line_of(line, maker)))
    elif field == "principal":
        verdicts = [check_verdicts(keygen, usual, line_of(line, usual), principal) for principal in PRINCIPALS]
    else:
        part = field.removeprefix("line's ")
        for text in LINES[part]:
            verdicts.append(check_verdicts(keygen, usual, line_of({**line, part: text}, usual)))
    assert verdicts[0]
    assert all(verdicts) is (field in ("key", "serial", "key_id", "extensions"))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    maker=st.builds(CertificateMaker, **{name: mostly(values) for name, values in FIELDS.items()}),
    lines=st.lists(
        st.fixed_dictionaries({name: mostly(values) for name, values in LINES.items()}), min_size=1, max_size=2
    ),
    principal=mostly(PRINCIPALS),
    revoked=st.none() | st.integers(0, 100),
    forged=mostly((False, True)),
)
def test_our_verdict_on_a_certificate_is_that_of_ssh_keygen(
    keygen: SshKeygen,
    revocations: list[str | bytes],
    maker: CertificateMaker,
    lines: list[dict[str, str]],
    principal: str,
    revoked: int | None,
    forged: bool,
) -> None:
    certificate = maker.make()
    if forged:  # a serial that the authority did not sign
        certificate = certificate.replace(maker.serial.to_bytes(8, "big"), (77).to_bytes(8, "big"), 1)
    gone = "" if revoked is None else revocations[revoked % len(revocations)]
    allowed = "".join(line_of(line, maker) for line in lines)
    check_verdicts(keygen, maker, allowed, principal, gone, certificate)


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
