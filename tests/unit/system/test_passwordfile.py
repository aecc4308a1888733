"""The file of names and hashes: what is accepted, what is refused, and how long an answer takes."""

from __future__ import annotations

import time
from pathlib import Path

import bcrypt
import pytest

from deploykit.errors import SettingsError
from deploykit.system.passwordfile import PasswordFile, PasswordTable, parse_passwords, read_passwords
from deploykit.system.shacrypt import sha_crypt

#: With a salt that does not change: hashes are in the names of tests.
BCRYPT = bcrypt.hashpw(b"correct", b"$2b$04$abcdefghijklmnopqrstuu").decode()
SHA = sha_crypt(b"correct", "$6$rounds=1000$salt$" + "." * 86)


@pytest.mark.parametrize("stored", [BCRYPT, BCRYPT.replace("$2b", "$2y"), BCRYPT.replace("$2b", "$2a"), SHA])
def test_a_password_is_compared(stored: str) -> None:
    table = parse_passwords(f"# people\n\nann:{stored}\r\n")
    assert table.check("ann", "correct")
    for name, password in (("ann", "wrong"), ("ann", ""), ("bob", "correct"), ("", "correct"), ("ann", "correct\0")):
        assert not table.check(name, password)


def test_a_password_longer_than_bcrypt_knows_is_refused() -> None:
    stored = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    table = parse_passwords(f"ann:{stored}")
    assert table.check("ann", "x" * 72)
    assert not table.check("ann", "x" * 72 + "end that would not count")


def test_the_empty_password_is_nobodys() -> None:
    stored = sha_crypt(b"", "$6$rounds=1000$salt$" + "." * 86)
    assert not parse_passwords(f"ann:{stored}").check("ann", "")


def test_a_password_of_any_length_costs_little() -> None:
    began = time.thread_time()
    assert not parse_passwords(f"ann:{SHA}").check("ann", "x" * 10_000_000)
    assert time.thread_time() - began < 2


@pytest.mark.parametrize("stored", [BCRYPT.replace("$04$", "$08$"), SHA.replace("rounds=1000$", "")])
def test_an_unknown_name_takes_as_long_as_a_known_one(stored: str) -> None:
    table = parse_passwords(f"ann:{stored}")

    def seconds(name: str) -> float:
        began = time.thread_time()
        table.check(name, "wrong")
        return time.thread_time() - began

    # In turn, so that what shares the processor's core weighs on both; noise only adds, so the quickest are compared.
    known, unknown = map(min, zip(*((seconds("ann"), seconds("eve")) for _ in range(7)), strict=True))
    assert 0.5 < unknown / known < 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no line NAME:HASH"),
        ("# nothing\n", "no line NAME:HASH"),
        ("ann", "line 1: expected NAME:HASH"),
        (f":{BCRYPT}", "line 1: expected NAME:HASH"),
        (f"a\tb:{BCRYPT}", "line 1: expected NAME:HASH"),
        (f" ann:{BCRYPT}", "line 1: expected NAME:HASH"),
        (f"ann:{BCRYPT}\nann:{BCRYPT}", "line 2: 'ann' stands twice"),
        ("ann:plain", "line 1: the hash of 'ann' is not"),
        ("ann:$apr1$abc$def", "line 1: the hash of 'ann' is not"),
        ("ann:{SHA}abc=", "line 1: the hash of 'ann' is not"),
        (f"ann:{BCRYPT.replace('$04$', '$31$')}", "line 1: the hash of 'ann' is not"),
        (f"ann:{BCRYPT}:extra", "line 1: the hash of 'ann' is not"),
    ],
)
def test_a_line_that_is_wrong_is_named_without_its_hash(text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=r"htpasswd -B -C 12") as caught:
        parse_passwords(text)
    assert says in str(caught.value)
    assert BCRYPT not in str(caught.value)
    assert "plain" not in str(caught.value)


def test_every_line_that_is_wrong_is_named() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_passwords("ann\nbob\n", "web.password_file")
    assert [problem.partition(": expected")[0] for problem in caught.value.problems] == [
        "web.password_file: line 1",
        "web.password_file: line 2",
    ]


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    file.write_text(f"ann:{BCRYPT}\n")
    file.chmod(0o644)
    with pytest.raises(SettingsError, match="mode 0644"):
        read_passwords(file)
    with pytest.raises(SettingsError, match="cannot read"):
        PasswordFile(tmp_path / "absent")


def test_no_hash_is_shown() -> None:
    assert BCRYPT not in repr(parse_passwords(f"ann:{BCRYPT}"))
    assert repr(PasswordTable(hashes={"ann": BCRYPT})) == "PasswordTable()"
