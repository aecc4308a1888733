"""SHA-crypt, compared with what OpenSSL computes."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.system.shacrypt import MOST_ROUNDS, is_sha_crypt, sha_crypt
from tests.support.needs import needs

PASSWORDS = ("x", "correct horse battery", "ü" * 9, "p" * 63, "q" * 64, "r" * 65, "s" * 130, " space ", "a$b:c")


@pytest.mark.parametrize("kind", ["5", "6"])
@pytest.mark.parametrize("salt", ["a", "saltsalt", "0123456789./AZaz"])
def test_hashes_are_those_of_openssl(kind: str, salt: str) -> None:
    openssl = needs("openssl", package="openssl")
    done = subprocess.run(
        [openssl, "passwd", f"-{kind}", "-salt", salt, "-stdin"],
        input="\n".join(PASSWORDS),
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    for password, stored in zip(PASSWORDS, done.stdout.split("\n"), strict=False):
        assert is_sha_crypt(stored)
        assert sha_crypt(password.encode(), stored) == stored
        assert sha_crypt(password.encode() + b"-", stored) != stored


#: Computed by `openssl passwd`, whose rounds are the default's.
STORED = "$6$saltsalt$" + "." * 86


def test_rounds_are_taken_from_the_hash() -> None:
    few = sha_crypt(b"x", STORED.replace("$6$", "$6$rounds=1000$"))
    assert few.startswith("$6$rounds=1000$saltsalt$")
    assert few.rpartition("$")[2] != sha_crypt(b"x", STORED).rpartition("$")[2]
    default = sha_crypt(b"x", STORED.replace("$6$", "$6$rounds=5000$"))
    assert default.rpartition("$")[2] == sha_crypt(b"x", STORED).rpartition("$")[2]


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "$6$",
        "$1$salt$" + "." * 22,
        "$6$salt$short",
        "$5$salt$" + "." * 86,
        "$6$a:b$" + "." * 86,
        "$6$" + "s" * 17 + "$" + "." * 86,
        f"$6$rounds={MOST_ROUNDS + 1}$salt$" + "." * 86,
        "$6$rounds=x$salt$" + "." * 86,
        "$6$salt$" + "." * 85 + "\n",
    ],
)
def test_another_form_and_too_many_rounds_are_no_hash(stored: str) -> None:
    assert not is_sha_crypt(stored)
    with pytest.raises(ValueError, match="no SHA-crypt hash"):
        sha_crypt(b"x", stored)


@given(password=st.binary(max_size=80), text=st.text(max_size=40))
@settings(max_examples=20, deadline=None)
def test_any_password_gives_a_hash_of_the_form(password: bytes, text: str) -> None:
    assert is_sha_crypt(sha_crypt(password, "$5$rounds=1000$salt$" + "." * 43))
    assert not is_sha_crypt(text)
