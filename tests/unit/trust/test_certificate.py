"""OpenSSH certificates: each field is read as it stands, and what would let in too many is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import pytest

from deploykit.errors import KeyFileError, SignatureError
from deploykit.trust.certificate import certified_key, is_certificate, parse_certificate
from deploykit.trust.keyformat import PublicKey, encode_key, ssh_string
from tests.support.certificates import AUTHORITY, FOREVER, CertificateMaker, packed
from tests.support.keys import fixed_key

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
KEY = fixed_key(1).public_blob
MAKER = CertificateMaker()
SK = encode_key(PublicKey(key_type="sk-ssh-ed25519@openssh.com", point=KEY[-32:], application="ssh:"))


def test_every_field_is_read() -> None:
    found = parse_certificate(
        attrs.evolve(
            MAKER, principals=packed("ann", "ops"), after=5, before=9, critical=packed("verify-required", "")
        ).make()
    )
    assert (found.key, found.authority, found.serial, found.key_id) == (KEY, AUTHORITY.public_blob, 7, b"ann@laptop")
    assert (found.host, found.principals, found.names) == (False, (b"ann", b"ops"), ("ann", "ops"))
    assert (found.valid_after, found.valid_before, found.verify_required) == (5, 9, True)
    assert str(found) == "certificate key id 'ann@laptop' serial 7"
    assert ssh_string(found.authority) in found.signed
    assert found.signature[-64:] == AUTHORITY._key.sign(found.signed)


@pytest.mark.parametrize("key", [KEY, SK], ids=["ed25519", "sk"])
def test_the_key_in_a_certificate_is_the_key_without_it(key: bytes) -> None:
    blob = attrs.evolve(MAKER, key=key).make()
    assert is_certificate(blob)
    assert not is_certificate(key)
    assert certified_key(blob) == key
    assert certified_key(key) == key


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"type": 2}, "host certificate"),
        ({"principals": b""}, "no principals"),
        ({"principals": packed("*")}, "no principal that is a plain name"),
        ({"principals": packed("")}, "no principal that is a plain name"),
        ({"critical": packed("force-command", packed("true"))}, "critical option 'force-command'"),
        ({"critical": packed("source-address", packed("10.0.0.0/8"))}, "critical option 'source-address'"),
        ({"critical": packed("verify-required", "", "x@example.com", "")}, "critical option 'x@example.com'"),
        ({"after": 1772366401}, "only after 2026-03-01T12:00:01Z"),
        ({"before": 1772366400}, "only before 2026-03-01T12:00:00Z"),
        ({"after": FOREVER}, "only after second 18446744073709551615"),
    ],
)
def test_a_certificate_that_does_not_count_says_why(fields: dict[str, object], says: str) -> None:
    objection = parse_certificate(attrs.evolve(MAKER, **fields).make()).objection(NOW)  # type: ignore[arg-type]
    assert says in objection
    assert "serial 7" in objection


def test_a_certificate_counts_from_its_first_second_to_the_one_before_its_last() -> None:
    found = parse_certificate(attrs.evolve(MAKER, after=1772366400, before=1772366410).make())
    counts = [seconds for seconds in range(-2, 14) if not found.objection(NOW + timedelta(seconds=seconds))]
    assert counts == list(range(10))


@pytest.mark.parametrize("name", ["*", "web*", "?", "!ann", "a,b", "", "a\nb", "\x1b[2J", b"\xff"])
def test_a_principal_that_could_be_a_pattern_is_no_name(name: str | bytes) -> None:
    found = parse_certificate(attrs.evolve(MAKER, principals=packed("ann", name, "release team")).make())
    assert found.names == ("ann", "release team")
    assert found.names_where(lambda name: name != "ann") == ("release team",)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"type": 3}, "neither user nor host"),
        ({"key_id": "a\0b"}, "NUL"),
        ({"principals": packed("a\0b")}, "NUL"),
        ({"principals": b"\0\0\0\x09ann"}, "cut short in its principals"),
        ({"principals": packed(*map(str, range(257)))}, "more than 256"),
        ({"critical": packed("verify-required")}, "cut short in its critical options"),
        ({"extensions": packed("permit-pty")}, "cut short in its extensions"),
        ({"key": packed("ssh-ed25519", bytes(32))}, "weak point"),
        ({"key": packed("ssh-rsa", "e", "n")}, "key type that counts here"),
    ],
)
def test_a_malformed_certificate_is_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(SignatureError, match=says):
        parse_certificate(attrs.evolve(MAKER, **fields).make())  # type: ignore[arg-type]


def test_a_certificate_cut_anywhere_or_with_more_behind_it_is_refused() -> None:
    blob = MAKER.make()
    for end in range(len(blob)):
        with pytest.raises(SignatureError, match="malformed"):
            parse_certificate(blob[:end])
    with pytest.raises(SignatureError, match="follows its end"):
        parse_certificate(blob + b"x")
    with pytest.raises(KeyFileError, match="not a certificate"):
        certified_key(blob[:-1])


def test_a_hostile_key_id_is_escaped_and_cut() -> None:
    words = parse_certificate(attrs.evolve(MAKER, key_id="\x1b[2J\n" + "x" * 500).make()).words
    assert words.isascii()
    assert words.isprintable()
    assert len(words) < 150
