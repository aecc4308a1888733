"""SHA-256 and SHA-512 crypt, `$5$` and `$6$`, as `mkpasswd`, `htpasswd -5` and `openssl passwd -6` write them. Pure.

Python has no module for it since 3.13, and no package that is kept up has it without more. The algorithm is that of
Ulrich Drepper's "Unix crypt using SHA-256 and SHA-512", version 0.6; its test vectors are among our tests.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any, Final

#: Most rounds that we compute: a login takes some seconds with them.
MOST_ROUNDS: Final = 1_000_000

_ALPHABET: Final = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM: Final = re.compile(
    r"\$(?P<kind>[56])\$(?:rounds=(?P<rounds>[1-9][0-9]{0,8})\$)?(?P<salt>[^$:\n]{0,16})\$(?P<digest>[./0-9A-Za-z]+)\Z"
)
_LENGTH: Final = {"5": 43, "6": 86}
_DEFAULT_ROUNDS: Final = 5000
_LEAST_ROUNDS: Final = 1000

_Hash = Callable[[bytes], Any]  # hashlib's constructors; typeshed has no public type for what they return


def is_sha_crypt(stored: str) -> bool:
    """Return whether a stored hash is of this family, whole, and not too slow to compute."""
    found = _FORM.match(stored)
    if found is None or len(found["digest"]) != _LENGTH[found["kind"]]:
        return False
    return int(found["rounds"] or _DEFAULT_ROUNDS) <= MOST_ROUNDS


def sha_crypt(password: bytes, stored: str) -> str:
    """Return the hash of a password with the kind, rounds and salt of a stored hash.

    Raises:
        ValueError: the stored hash is not one that `is_sha_crypt` accepts.
    """
    found = _FORM.match(stored)
    if found is None or not is_sha_crypt(stored):
        raise ValueError("no SHA-crypt hash")
    rounds = max(int(found["rounds"] or _DEFAULT_ROUNDS), _LEAST_ROUNDS)
    salt, kind = found["salt"].encode(), found["kind"]
    digest = _rounds(hashlib.sha512 if kind == "6" else hashlib.sha256, password, salt, rounds)
    shown = f"rounds={rounds}$" if found["rounds"] else ""
    return f"${kind}${shown}{found['salt']}${_encoded(digest, kind)}"


def _rounds(make: _Hash, password: bytes, salt: bytes, rounds: int) -> bytes:
    """Return the digest; the letters are those of the specification."""
    b: bytes = make(password + salt + password).digest()
    a = make(password + salt + _repeated(b, len(password)))
    bits = len(password)
    while bits:
        a.update(b if bits & 1 else password)
        bits >>= 1
    digest: bytes = a.digest()
    p = _repeated(make(password * len(password)).digest(), len(password))
    s = _repeated(make(salt * (16 + digest[0])).digest(), len(salt))
    for number in range(rounds):
        odd = number & 1
        data = p if odd else digest
        if number % 3:
            data += s
        if number % 7:
            data += p
        digest = make(data + (digest if odd else p)).digest()
    return digest


def _repeated(data: bytes, length: int) -> bytes:
    return (data * (length // len(data) + 1))[:length]


def _encoded(digest: bytes, kind: str) -> str:
    """Return the digest in crypt's base 64, its bytes in the order that the specification has for each kind."""
    third = len(digest) // 3
    # Three bytes at a time, which stand a third of the digest apart; each next group begins with another of the three.
    step = 1 if kind == "6" else 2
    text = ""
    at = (0, third, 2 * third)
    for number in range(third):
        first = number * step % 3
        group = [digest[at[(first + offset) % 3] + number] for offset in range(3)]
        text += _base64(group[0] << 16 | group[1] << 8 | group[2], 4)
    if kind == "6":
        return text + _base64(digest[63], 2)
    return text + _base64(digest[31] << 8 | digest[30], 3)


def _base64(value: int, characters: int) -> str:
    return "".join(_ALPHABET[value >> 6 * at & 63] for at in range(characters))


__all__ = ["MOST_ROUNDS", "is_sha_crypt", "sha_crypt"]
