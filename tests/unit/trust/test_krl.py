"""Binary lists of revoked keys: they revoke what they list, and one that is not understood is refused."""

from __future__ import annotations

import hashlib

import attrs
import pytest

from deploykit.errors import KeyFileError
from deploykit.trust.certificate import parse_certificate
from deploykit.trust.krl import Revocations, is_krl, key_id_line, parse_krl, serial_line
from tests.support.certificates import AUTHORITY, CertificateMaker, krl, krl_of, packed
from tests.support.keys import fixed_key

KEY = fixed_key(1).public_blob
OTHER = fixed_key(2).public_blob
CA = AUTHORITY.public_blob
LIST, RANGE, BITMAP, KEY_ID = 0x20, 0x21, 0x22, 0x23


def u64(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(8, "big") for number in numbers)


def revoked_serials(revocations: Revocations, serials: range) -> list[int]:
    maker = CertificateMaker()
    return [n for n in serials if revocations.objection(parse_certificate(attrs.evolve(maker, serial=n).make()))]


@pytest.mark.parametrize(
    "section",
    [(2, packed(KEY)), (3, packed(hashlib.sha1(KEY).digest())), (5, packed(hashlib.sha256(KEY).digest()))],
    ids=["explicit", "sha1", "sha256"],
)
def test_a_key_is_revoked_in_each_of_three_ways(section: tuple[int, bytes]) -> None:
    found = parse_krl(krl(section))
    assert found.has_key(KEY)
    assert not found.has_key(OTHER)
    assert "key SHA256:" in found.objection(parse_certificate(CertificateMaker().make()))
    assert not found.objection(parse_certificate(CertificateMaker(key=OTHER).make()))


def test_with_its_key_an_authority_loses_its_certificates() -> None:
    found = parse_krl(krl((2, packed(CA))))
    assert "its authority" in found.objection(parse_certificate(CertificateMaker().make()))
    assert not found.objection(parse_certificate(CertificateMaker(authority=fixed_key(9)).make()))


@pytest.mark.parametrize(
    ("sections", "serials"),
    [
        ([(LIST, u64(3, 9))], [3, 9]),
        ([(RANGE, u64(3, 6)), (RANGE, u64(5, 8)), (RANGE, u64(9, 10))], [3, 4, 5, 6, 7, 8, 9, 10]),
        ([(RANGE, u64(3, 9)), (RANGE, u64(4, 5))], [3, 4, 5, 6, 7, 8, 9]),
        ([(BITMAP, u64(4) + packed(b"\x0b"))], [4, 5, 7]),
        ([(BITMAP, u64(0) + packed(b"\x02"))], [1]),
        ([(LIST, u64(2)), (RANGE, u64(12, 13)), (LIST, u64(5))], [2, 5, 12, 13]),
    ],
)
def test_serials_are_revoked_one_by_one_in_ranges_and_in_bitmaps(
    sections: list[tuple[int, bytes]], serials: list[int]
) -> None:
    found = parse_krl(krl(krl_of(CA, *sections)))
    assert revoked_serials(found, range(15)) == serials


def test_a_bitmap_of_two_thousand_bytes_revokes_each_of_its_bits() -> None:
    bits = [3, 250, 251, 255, 256, 257, 511, 16_000]
    number = sum(1 << bit for bit in bits)
    found = parse_krl(krl(krl_of(CA, (BITMAP, u64(1_000_003) + packed(number.to_bytes(2001, "big"))))))
    (revoked,) = found.certificates.values()
    assert [n - 1_000_003 for n in range(999_000, 1_020_000) if revoked.has_serial(n)] == bits


def test_the_last_serial_of_64_bits_can_be_revoked() -> None:
    last = (1 << 64) - 1
    for section in ((LIST, u64(last)), (RANGE, u64(last, last)), (BITMAP, u64(last) + packed(b"\x01"))):
        (revoked,) = parse_krl(krl(krl_of(CA, section))).certificates.values()
        assert revoked.has_serial(last)
        assert not revoked.has_serial(last - 1)


def test_a_serial_is_of_one_authority_and_no_key_counts_for_all() -> None:
    theirs = parse_certificate(CertificateMaker(authority=fixed_key(9)).make())
    assert not parse_krl(krl(krl_of(CA, (LIST, u64(7))))).objection(theirs)
    assert "by its serial" in parse_krl(krl(krl_of(b"", (LIST, u64(7))))).objection(theirs)
    assert "by its key id" in parse_krl(krl(krl_of(b"", (KEY_ID, packed("ann@laptop"))))).objection(theirs)
    assert not parse_krl(krl(krl_of(CA, (KEY_ID, packed("ann@laptop"))))).objection(theirs)


def test_a_certificate_without_a_number_is_revoked_by_its_key_id_alone() -> None:
    unnumbered = parse_certificate(CertificateMaker(serial=0).make())
    assert not parse_krl(krl(krl_of(CA, (RANGE, u64(1, 9))))).objection(unnumbered)
    assert "by its key id" in parse_krl(krl(krl_of(CA, (KEY_ID, packed("bob", "ann@laptop"))))).objection(unnumbered)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"SSHKRL\n\1", "does not begin"),
        (b"SSHKRL", "cut short in its beginning"),
        (krl(version=2), "version is 2"),
        (krl((9, b"")), "unknown kind 9"),
        (krl((4, packed("x"))), "signature of its own"),
        (krl((3, packed("short"))), "has 5 bytes, not 20"),
        (krl((5, packed("short"))), "has 5 bytes, not 32"),
        (krl((2, packed("short"))), "revokes as a key is none"),
        (krl((2, packed(CertificateMaker().make()))), "revokes as a key is none"),
        (krl((2, packed(KEY)[:-1])), "cut short"),
        (krl((255, packed("new@example.com") + b"\1" + packed(""))), "needs the extension 'new@example.com'"),
        (krl((255, packed("new@example.com") + b"\0" + packed("") + b"x")), "follows its end"),
        (krl(krl_of(CA, (0x39, packed("new@example.com") + b"\1" + packed("")))), "needs the extension"),
        (krl(krl_of(CA, (0x24, b""))), "certificate section of unknown kind 36"),
        (krl(krl_of(CA, (LIST, u64(0)))), "serial 0"),
        (krl(krl_of(CA, (LIST, u64(7)[:-1]))), "cut short"),
        (krl(krl_of(CA[:-1], (LIST, u64(7)))), "not whole"),
        (krl(krl_of(CA + b"x", (LIST, u64(7)))), "not whole"),
        (krl(krl_of(packed("ssh-ed25719", CA[-32:]), (LIST, u64(7)))), "not whole"),
        (krl(krl_of(packed("ssh-rsa", "x"), (LIST, u64(7)))), "not whole"),
        (krl(krl_of(CA, (RANGE, u64(0, 5)))), "no range"),
        (krl(krl_of(CA, (RANGE, u64(6, 5)))), "no range"),
        (krl(krl_of(CA, (RANGE, u64(5, 6, 7)))), "follows its end"),
        (krl(krl_of(CA, (BITMAP, u64(0) + packed(b"\1")))), "serial 0"),
        (krl(krl_of(CA, (BITMAP, u64(5) + packed(b"\x80")))), "negative"),
        (krl(krl_of(CA, (BITMAP, u64(5) + packed(b"\1" * 2049)))), "too long"),
        (krl(krl_of(CA, (BITMAP, u64((1 << 64) - 1) + packed(b"\2")))), "more than 64 bits"),
        (krl(krl_of(CA, (KEY_ID, packed("a\0b")))), "NUL"),
        (krl(krl_of(b"junk", (KEY_ID, packed("a")))), "key of an authority in it is none"),
        (krl() + b"\2", "cut short"),
    ],
)
def test_a_list_that_is_not_understood_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(KeyFileError, match=says):
        parse_krl(data)


def test_a_list_cut_anywhere_is_refused_unless_a_section_ends_there() -> None:
    data = krl((2, packed(KEY)), krl_of(CA, (LIST, u64(3)), (KEY_ID, packed("ann"))))
    whole = {len(krl()), len(krl((2, packed(KEY)))), len(data)}
    for end in range(len(data)):
        if end not in whole:
            with pytest.raises(KeyFileError):
                parse_krl(data[:end])


def test_extensions_that_need_not_be_understood_are_ignored() -> None:
    extension = packed("new@example.com") + b"\0" + packed("content")
    assert parse_krl(krl((255, extension), krl_of(CA, (0x39, extension)), (2, packed(KEY)))).has_key(KEY)


def test_an_empty_list_revokes_nothing() -> None:
    assert is_krl(krl())
    assert not is_krl(b"ssh-ed25519 AAAA")
    found = parse_krl(krl())
    assert found == Revocations()
    assert not found.has_key(KEY)


@pytest.mark.parametrize(("first", "last"), [(0, None), (5, 4), (1, 1 << 64), (-1, 4)])
def test_a_specification_revokes_only_what_can_be_a_serial(first: int, last: int | None) -> None:
    with pytest.raises(KeyFileError, match="no serials"):
        serial_line(first, last)


@pytest.mark.parametrize("key_id", ["", "a#b", " a", "a\t", "a\nid: b", "\x1b"])
def test_a_specification_revokes_no_key_id_that_ssh_keygen_would_read_otherwise(key_id: str) -> None:
    with pytest.raises(KeyFileError, match="cannot revoke key id"):
        key_id_line(key_id)
