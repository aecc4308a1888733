"""The allowed_signers file: read as ssh-keygen reads it, or refused as a whole with every mistake named."""

from __future__ import annotations

import base64
import re
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from deploykit.errors import KeyFileError
from deploykit.trust.allowed_signers import MAX_TEXT, AllowedSigners, matches
from deploykit.trust.keyformat import fingerprint, key_blob, public_line, raw_key
from deploykit.trust.sshsig import signed_bytes
from tests.support.keys import fixed_key
from tests.support.securitykeys import SoftwareSecurityKey

KEY = fixed_key(1)
OTHER = fixed_key(2)
PUB = KEY.public_openssh


def problems(text: str, revoked: str = "") -> tuple[str, ...]:
    with pytest.raises(KeyFileError) as caught:
        AllowedSigners.parse(text, revoked=revoked)
    return caught.value.problems


def test_a_file_with_everything_in_it() -> None:
    signers = AllowedSigners.parse(
        "# who may deploy\n"
        "\n"
        f"  ops@example.com,*@ops.example.com,!guest@ops.example.com {PUB} a comment of words\n"
        '\t"release team,ci" NAMESPACES="deploy*,!deploycat",valid-after="20260101Z",Valid-Before="202612312359Z"'
        f"\t{PUB}\r\n"
        f"last ssh-ed25519   {OTHER.public_openssh.split()[1]}"
    )
    first, second, third = signers.signers
    assert first.principals == ("ops@example.com", "*@ops.example.com", "!guest@ops.example.com")
    assert (first.namespaces, first.valid_after, first.valid_before) == (None, None, None)
    assert (first.comment, first.line, first.key) == ("a comment of words", 3, KEY.public_blob)
    assert second.principals == ("release team", "ci")
    assert second.namespaces == ("deploy*", "!deploycat")
    assert second.valid_after == datetime(2026, 1, 1, tzinfo=UTC)
    assert second.valid_before == datetime(2026, 12, 31, 23, 59, tzinfo=UTC)
    assert third.key == OTHER.public_blob
    assert signers.unused == ()
    assert signers.lines_for(KEY.public_blob) == (first, second)


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment", " \t\r\n#x"])
def test_an_empty_file_allows_nobody(text: str) -> None:
    assert AllowedSigners.parse(text) == AllowedSigners()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("ops", "neither a public key nor an option"),
        ("ops ssh-ed25519", "no public key"),
        ("ops ssh-ed25519 !!!!", "not base64"),
        (f"ops {PUB}=", "base64"),
        (f"ops {PUB[:-1]}", "base64"),
        (f"ops {PUB[:-4]}", "cut short"),
        (f"ops {PUB}AAAA", "follows its end"),
        (f"ops ssh-rsa {PUB.split()[1]}", "but the key says 'ssh-ed25519'"),
        (PUB, "neither a public key nor an option"),
        ("ops cert-authority", "no public key"),
        (f"ops cert-authority,cert-authority {PUB}", "given twice"),
        (f'ops cert-authority="yes" {PUB}', "neither a comma nor a blank"),
        (f"ops namespaces=deploykit {PUB}", "double quotes"),
        (f"ops namespaces {PUB}", "double quotes"),
        (f'ops namespaces="deploykit {PUB}', "not closed"),
        (f'ops namespaces="a",namespaces="b" {PUB}', "given twice"),
        (f'ops namespaces="a", {PUB}', "neither a public key nor an option"),
        (f'ops namespaces="a"valid-after="20260101" {PUB}', "neither a comma nor a blank"),
        (f'ops namespaces="a" valid-after="20260101" {PUB}', "no public key"),
        (f"ops valid-until=20260101 {PUB}", "neither a public key nor an option"),
        (f'ops valid-until="20260101 {PUB}', "not closed"),
        (f'ops valid-until="20260101",valid-until="20260102" {PUB}', "given twice"),
        ('ops valid-until="20260101" ssh-ed25519 !!!!', "not base64"),
        (f"ops no-touch-required,valid-after={PUB}", "double quotes"),
        (f'ops valid-after="yesterday" {PUB}', "not a time"),
        (f'ops valid-after="" {PUB}', "not a time"),
        (f'ops valid-after="2026-01-01" {PUB}', "not a time"),
        (f'ops valid-after="20260230Z" {PUB}', "calendar"),
        (f'ops valid-after="20260101250000Z" {PUB}', "calendar"),
        (f'ops valid-after="19691231Z" {PUB}', "1970"),
        (f'ops valid-after="\u0662\u0660\u0662\u0666\u0660\u0661\u0660\u0661Z" {PUB}', "not a time"),
        (f'ops valid-after="20260102Z",valid-before="20260101Z" {PUB}', "not later"),
        (f'ops valid-after="20260101Z",valid-before="20260101Z" {PUB}', "not later"),
        (f"ops,,dev {PUB}", "empty principal"),
        (f",ops {PUB}", "empty principal"),
        (f"! {PUB}", "empty principal"),
        (f'"" {PUB}', "empty principal"),
        (f'"ops {PUB}', "not closed"),
        (f'"ops"dev {PUB}', "not closed"),
        (f'o"ps" {PUB}', "quote inside"),
        (f"ops, dev {PUB}", "empty principal"),
        (f"ops\x1b[2J {PUB}", "control character"),
        (f"ops\0 {PUB}", "control character"),
        (f"ops {PUB} {'x' * 9000}", "longer than"),
        (f"\ufeffops {PUB}", "byte order mark"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(line: str, says: str) -> None:
    (problem,) = problems(f"# a comment first\n{line}\n")
    assert problem.startswith("line 2: ")
    assert re.search(says, problem), problem


def test_all_mistakes_are_told_at_once_with_their_lines() -> None:
    found = problems(
        f"ops ssh-ed25519 !!!!\ngood {PUB}\nca cert-authority\n\nbad\n",
        revoked=f"{PUB}\nnonsense\nssh-ed25519 ????\n",
    )
    assert [problem.split(":")[0] for problem in found] == [
        "line 1",
        "line 3",
        "line 5",
        "revoked keys, line 2",
        "revoked keys, line 3",
    ]


def test_a_file_of_another_kind_is_not_read_to_its_end() -> None:
    with pytest.raises(KeyFileError, match="200 or more mistakes") as caught:
        AllowedSigners.parse("x y z\n" * 100_000, revoked="rubbish\n" * 100_000)
    assert len(caught.value.problems) == 200


def test_a_mistake_in_one_line_leaves_no_half_file() -> None:
    with pytest.raises(KeyFileError, match="line 2"):
        AllowedSigners.parse(f"ops {PUB}\nbad\n")


def test_other_key_types_count_for_nothing_and_are_reported() -> None:
    ecdsa = _line("ecdsa-sha2-nistp256", b"\0\0\0\x08nistp256" + b"\0\0\0\x01\x04")
    rsa = _line("ssh-rsa", b"\0\0\0\x01x")
    certificate = _line("ssh-ed25519-cert-v01@openssh.com", b"\0\0\0\x01x")
    signers = AllowedSigners.parse(f"a {ecdsa}\nops {PUB}\nb {rsa}\nc {certificate}\n")
    assert [signer.line for signer in signers.signers] == [2]
    assert [note.split(":")[0] for note in signers.unused] == ["line 1", "line 3", "line 4"]
    assert all("do not count here" in note for note in signers.unused)


@pytest.mark.parametrize(
    "option", ["no-touch-required", 'valid-until="20260101"', 'namespaces="deploykit",x="a b\\"c"']
)
def test_a_line_with_an_option_that_we_do_not_know_counts_for_nothing_and_is_reported(option: str) -> None:
    signers = AllowedSigners.parse(f"ops {option} {PUB}\ndev {OTHER.public_openssh}\n")
    assert [signer.line for signer in signers.signers] == [2]
    (note,) = signers.unused
    assert note.startswith("line 1: option ")
    assert "not supported" in note


@pytest.mark.parametrize(
    "options", ["cert-authority", "Cert-Authority", 'namespaces="deploykit",cert-authority,valid-after="20260101Z"']
)
def test_a_certificate_authority_signs_no_message_itself(options: str) -> None:
    signers = AllowedSigners.parse(f"*@example.com {options} {PUB}\nops {OTHER.public_openssh}\n")
    authority, plain = signers.signers
    assert (authority.authority, plain.authority) == (True, False)
    assert signers.lines_for(KEY.public_blob) == ()
    assert signers.authorities_for(KEY.public_blob) == (authority,)
    assert signers.authorities_for(OTHER.public_blob) == ()


def test_a_key_may_be_an_authority_on_one_line_and_sign_by_another() -> None:
    signers = AllowedSigners.parse(f"* cert-authority {PUB}\nops {PUB}\n")
    assert [line.line for line in signers.lines_for(KEY.public_blob)] == [2]
    assert [line.line for line in signers.authorities_for(KEY.public_blob)] == [1]


def _line(kind: str, rest: bytes) -> str:
    return public_line(len(kind).to_bytes(4, "big") + kind.encode() + rest)


def test_a_line_separator_of_unicode_starts_no_line() -> None:
    # splitlines() would make a second, unseen entry out of what an editor shows as a comment.
    for separator in ("\u2028", "\u2029", "\x85"):
        signers = AllowedSigners.parse(f"ops {PUB} comment{separator}evil {OTHER.public_openssh}\n")
        assert [signer.key for signer in signers.signers] == [KEY.public_blob]


WEAK = [
    bytes(32),
    b"\1" + bytes(31),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    b"\xec" + b"\xff" * 30 + b"\x7f",
    b"\xed" + b"\xff" * 30 + b"\x7f",
    b"\xee" + b"\xff" * 30 + b"\x7f",
]


@pytest.mark.parametrize("sign_bit", [0, 0x80])
@pytest.mark.parametrize("number", range(len(WEAK)))
def test_threat_1_a_point_that_anybody_can_sign_for_is_no_key(number: int, sign_bit: int) -> None:
    raw = WEAK[number][:31] + bytes([WEAK[number][31] | sign_bit])
    (problem,) = problems(f"ops {public_line(key_blob(raw))}")
    assert "anybody can sign" in problem


def test_such_points_are_a_danger_in_truth() -> None:
    """Why the test above: with the neutral element as "key", one fixed signature fits any text."""
    neutral = b"\1" + bytes(31)
    for body in (b"one", b"two"):
        Ed25519PublicKey.from_public_bytes(neutral).verify(neutral + bytes(32), signed_bytes(body))


def test_the_file_is_bounded() -> None:
    (problem,) = problems("#" * (MAX_TEXT + 1))
    assert "longer than" in problem


def test_times_without_a_zone_are_of_the_zone_given() -> None:
    east = timezone(timedelta(hours=2))
    (signer,) = AllowedSigners.parse(f'ops valid-after="202603011200" {PUB}', zone=east).signers
    assert signer.valid_after == datetime(2026, 3, 1, 10, tzinfo=UTC)
    (signer,) = AllowedSigners.parse(f'ops valid-after="202603011200" {PUB}').signers
    assert signer.valid_after == datetime(2026, 3, 1, 12).astimezone(UTC)


@pytest.mark.parametrize("mark", ["Z", "z", "UTC", "utc"])
def test_a_time_can_be_marked_as_utc(mark: str) -> None:
    east = timezone(timedelta(hours=2))
    (signer,) = AllowedSigners.parse(f'ops valid-after="20260301120001{mark}" {PUB}', zone=east).signers
    assert signer.valid_after == datetime(2026, 3, 1, 12, 0, 1, tzinfo=UTC)


def test_revoked_keys_of_other_types_are_kept_too() -> None:
    line = _line("ssh-rsa", b"\0\0\0\x01\x03\0\0\0\x01\x05")
    signers = AllowedSigners.parse("", revoked=f"{line} old\n# comment\n{PUB}\n")
    assert len(signers.revoked.keys) == 2
    assert signers.is_revoked(KEY.public_blob)
    assert not signers.is_revoked(OTHER.public_blob)


def test_a_revoked_key_that_is_cut_short_refuses_the_list() -> None:
    """It would revoke nothing, and nobody would notice."""
    (problem,) = problems("", revoked=f"{OTHER.public_openssh}\n{PUB[:-4]}\n")
    assert problem == "revoked keys, line 2: the key is not whole"


@pytest.mark.parametrize(
    "key", [SoftwareSecurityKey.ed25519(), SoftwareSecurityKey.ecdsa()], ids=lambda key: key.key_type
)
@pytest.mark.parametrize("cut", [1, 3, 9, 20])
def test_the_revoked_key_of_a_security_key_that_is_cut_short_refuses_the_list(
    key: SoftwareSecurityKey, cut: int
) -> None:
    assert AllowedSigners.parse("", revoked=key.public_openssh).is_revoked(key.public_blob)
    short = base64.b64encode(key.public_blob[:-cut]).decode()
    with pytest.raises(KeyFileError, match="the key is not whole"):
        AllowedSigners.parse("", revoked=f"{key.key_type} {short}\n")


def test_a_weak_key_can_be_revoked() -> None:
    weak = key_blob(bytes(32))
    assert AllowedSigners.parse("", revoked=public_line(weak)).is_revoked(weak)


def test_repr_names_keys_by_fingerprint() -> None:
    signers = AllowedSigners.parse(f"ops {PUB}", revoked=OTHER.public_openssh)
    assert KEY.fingerprint in repr(signers)
    assert "<1 keys>" in repr(signers)
    assert fingerprint(raw_key_roundtrip(KEY.public_blob)) == KEY.fingerprint


def raw_key_roundtrip(blob: bytes) -> bytes:
    return key_blob(raw_key(blob))


# -- patterns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "text", "expected"),
    [
        ("a", "a", True),
        ("a", "A", False),
        ("a", "ab", False),
        ("a*", "a", True),
        ("*", "", True),
        ("*", "anything", True),
        ("?", "", False),
        ("?", "x", True),
        ("*@example.com", "ops@example.com", True),
        ("*@example.com", "ops@example.com.evil", False),
        ("*.*", "a.b.c", True),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "a-b-b-d", False),
        ("**a", "a", True),
        ("a,b", "b", True),
        ("*,!b", "b", False),
        ("!b,*", "b", False),
        ("!b", "a", False),
        ("!b*,*", "a", True),
        ("[ab]", "a", False),
        ("[ab]", "[ab]", True),
        (".", "a", False),
    ],
)
def test_patterns_mean_what_ssh_config_says(patterns: str, text: str, expected: bool) -> None:
    assert matches(patterns.split(","), text) is expected


def test_no_pattern_takes_long() -> None:
    began = time.process_time()
    assert not matches(["*a" * 200 + "b"], "a" * 4000)
    assert time.process_time() - began < 2


# -- many keys -------------------------------------------------------------------------------------------------------


def test_the_limit_of_the_file_leaves_room_for_100_000_nodes() -> None:
    line = f'web12345.shop.example.com namespaces="deploykit" {PUB} web12345 of the shop\n'
    assert len(line) * 100_000 < MAX_TEXT


@pytest.mark.parametrize("lines", ["plain", "one key", "odd"])
def test_the_time_for_a_file_grows_with_its_lines_alone(lines: str) -> None:
    """The bound is generous: a parse in quadratic time takes minutes."""
    count = 5_000
    points = [number.to_bytes(32, "big") for number in range(1000, 1000 + count)]
    keys = [PUB if lines == "one key" else public_line(key_blob(point)) for point in points]
    quote = '"' if lines == "odd" else ""  # what the quick way leaves to the other
    text = "".join(f'{quote}web{number}{quote} namespaces="deploykit" {key}\n' for number, key in enumerate(keys))
    began = time.process_time()
    signers = AllowedSigners.parse(text, revoked="\n".join(keys))
    assert time.process_time() - began < 5
    blob = signers.signers[-1].key
    began = time.process_time()
    for _ in range(1000):
        assert signers.lines_for(blob)
        assert signers.is_revoked(blob)
    assert time.process_time() - began < 0.5
