"""Which hashes are let into an access file: neither weak, nor slow, nor what a server would not take."""

from __future__ import annotations

import pytest

from deploykit.daemons.access.hashrules import hash_problem
from deploykit.settings.access import AccessKind
from deploykit.system.passwordmaking import hash_bcrypt, hash_sha512

SHA = "$6$saltsalt$" + "a" * 86
BCRYPT = "$2b${}$" + "a" * 53


@pytest.mark.parametrize("kind", ["htpasswd", "haproxy"])
def test_what_we_make_is_taken(kind: AccessKind) -> None:
    assert hash_problem(hash_sha512("correct horse"), kind) == ""
    assert kind == "haproxy" or hash_problem(hash_bcrypt("correct horse"), kind) == ""


@pytest.mark.parametrize(
    ("hash", "kind", "ok"),
    [
        (SHA, "haproxy", True),
        (SHA.replace("$6$", "$6$rounds=5000$"), "haproxy", True),
        (SHA.replace("$6$", "$6$rounds=1000$"), "htpasswd", False),
        (SHA.replace("$6$", "$6$rounds=100000$"), "htpasswd", True),
        (SHA.replace("$6$", "$6$rounds=100001$"), "htpasswd", False),
        (SHA.replace("$6$", "$6$rounds=100000$"), "haproxy", False),
        (SHA.replace("$6$", "$6$rounds=999999999$"), "htpasswd", False),
        (SHA[:-1], "htpasswd", False),
        (SHA + "\n", "htpasswd", False),
        (SHA + "a", "htpasswd", False),
        (SHA.replace("$6$", "$5$"), "htpasswd", False),
        (BCRYPT.format("05"), "htpasswd", False),
        (BCRYPT.format("08"), "haproxy", True),
        (BCRYPT.format("10"), "htpasswd", True),
        (BCRYPT.format("10"), "haproxy", False),
        (BCRYPT.format("13"), "htpasswd", False),
        (BCRYPT.format("99"), "htpasswd", False),
        ("$apr1$abc$def", "htpasswd", False),
        ("$y$j9T$abc$def", "htpasswd", False),
        ("{SHA}abc", "htpasswd", False),
        ("*0", "haproxy", False),
        ("", "htpasswd", False),
    ],
)
def test_which_hashes_are_taken(hash: str, kind: AccessKind, ok: bool) -> None:
    problem = hash_problem(hash, kind)
    assert (not problem) is ok
    assert not hash or hash not in problem
