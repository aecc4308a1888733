"""Make passwords that people type once, and the hashes that go into access files.

Rules:

* A password of ours has 99 bits, from the system's random numbers; no letter in it looks like another.
* A hash has a salt of its own. No error shows a password.
* SHA-512 crypt needs no package, and every server takes it. bcrypt counts 72 bytes: a longer password is refused.
"""

from __future__ import annotations

import math
import secrets
from typing import Final

from deploykit.errors import UsageError
from deploykit.system.shacrypt import sha_crypt

#: Without i, l, o, 0 and 1. Lower case: it can be read out on the telephone.
_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"
_GROUPS: Final = 4
_IN_GROUP: Final = 5
_CRYPT: Final = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SALT: Final = 16
_BCRYPT_BYTES: Final = 72
_MOST_BYTES: Final = 512
_BCRYPT_COST: Final = 10
#: Bits of a password of ours.
PASSWORD_BITS: Final = _GROUPS * _IN_GROUP * math.log2(len(_ALPHABET))


def make_password() -> str:
    """Return a new password: four groups of five characters, with dashes between them.

    >>> len(make_password()), PASSWORD_BITS > 80
    (23, True)
    """
    groups = ("".join(secrets.choice(_ALPHABET) for _ in range(_IN_GROUP)) for _ in range(_GROUPS))
    return "-".join(groups)


def hash_sha512(password: str) -> str:
    """Return a password as SHA-512 crypt (`$6$`, 5,000 rounds), which nginx, Apache and haproxy take.

    Raises:
        UsageError: it is empty, too long, or has a NUL.
    """
    _check(password)
    salt = "".join(secrets.choice(_CRYPT) for _ in range(_SALT))
    return sha_crypt(password.encode(), f"$6${salt}${'.' * 86}")


def hash_bcrypt(password: str, cost: int = _BCRYPT_COST) -> str:
    """Return a password as bcrypt (`$2b$`).

    Raises:
        UsageError: it is empty, has a NUL, is longer than 72 bytes, or the package bcrypt is not installed.
    """
    _check(password)
    if len(password.encode()) > _BCRYPT_BYTES:
        raise UsageError(f"bcrypt counts {_BCRYPT_BYTES} bytes of a password, and this one is longer", "use SHA-512")
    try:
        import bcrypt
    except ImportError:
        raise UsageError("bcrypt hashes need the package bcrypt", "pip install 'deploykit[web]'") from None
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


def hash_for_people(password: str) -> str:
    """Return a password that a person chose as the slowest hash that a server can afford: bcrypt, else SHA-512 crypt.

    Raises:
        UsageError: it is empty, or has a NUL.
    """
    _check(password)
    try:
        return hash_bcrypt(password)
    except UsageError:  # longer than bcrypt counts, or no bcrypt here
        return hash_sha512(password)


def _check(password: str) -> None:
    if not password or "\0" in password:
        raise UsageError("a password is not empty and has no NUL", "choose another one")
    if len(password.encode()) > _MOST_BYTES:  # SHA-512 crypt takes time and memory by the square of the length
        raise UsageError(f"a password has at most {_MOST_BYTES} bytes", "choose a shorter one")


__all__ = ["PASSWORD_BITS", "hash_bcrypt", "hash_for_people", "hash_sha512", "make_password"]
