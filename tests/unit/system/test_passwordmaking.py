"""Passwords of ours and their hashes: enough bits, no letter like another, and what other programs verify."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deploykit.errors import UsageError
from deploykit.system import passwordmaking
from deploykit.system.passwordmaking import (
    PASSWORD_BITS,
    hash_bcrypt,
    hash_for_people,
    hash_sha512,
    make_password,
)
from tests.support.needs import needs


def test_a_password_has_80_bits_and_no_letter_that_looks_like_another() -> None:
    made = {make_password() for _ in range(200)}
    assert len(made) == 200
    assert PASSWORD_BITS >= 80
    letters = set("".join(made)) - {"-"}
    assert len(letters) ** 20 >= 2**80
    assert not letters & set("il1o0O")
    assert all(len(each) == 23 and each.count("-") == 3 for each in made)


def test_htpasswd_and_openssl_verify_the_hashes(tmp_path: Path) -> None:
    htpasswd, openssl = needs("htpasswd", package="apache2-utils"), needs("openssl", package="openssl")
    password = make_password()
    sha = hash_sha512(password)
    file = tmp_path / "users"
    file.write_text(f"a:{sha}\nb:{hash_bcrypt(password)}\n")
    for user in "ab":
        for word, code in ((password, 0), (password + "x", 3), (password[:-1], 3)):
            done = subprocess.run([htpasswd, "-vb", file, user, word], capture_output=True, check=False)
            assert done.returncode == code, done.stderr
    salt = sha.split("$")[2]
    salted = subprocess.run(
        [openssl, "passwd", "-6", "-salt", salt, password], capture_output=True, text=True, check=True
    )
    assert salted.stdout.strip() == sha


def test_each_hash_has_a_salt_of_its_own() -> None:
    assert hash_sha512("x") != hash_sha512("x")


@pytest.mark.parametrize("password", ["", "a\0b"])
def test_what_servers_would_cut_is_refused(password: str) -> None:
    for make in (hash_sha512, hash_bcrypt, hash_for_people):
        with pytest.raises(UsageError):
            make(password)


def test_a_password_beyond_what_bcrypt_counts_gets_the_other_hash() -> None:
    with pytest.raises(UsageError, match="72 bytes"):
        hash_bcrypt("x" * 73)
    assert hash_for_people("x" * 73).startswith("$6$")
    assert hash_for_people("x" * 72).startswith("$2b$10$")


def test_without_bcrypt_people_get_the_other_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bcrypt", None)
    assert passwordmaking.hash_for_people("x").startswith("$6$")
