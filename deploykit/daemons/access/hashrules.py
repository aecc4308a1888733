"""Which password hashes are let into an access file. Pure.

Rules:

* bcrypt and SHA-512 crypt, whole, and neither weak nor slow: every request to the site pays for its hash.
* haproxy pays in its event loop: a hash that takes 50 ms makes all its clients wait. Its limits are lower.
"""

from __future__ import annotations

import re
from typing import Final

from deploykit.settings.access import AccessKind

_BCRYPT: Final = re.compile(r"\$2[aby]\$(?P<cost>[0-9]{2})\$[./0-9A-Za-z]{53}\Z", re.ASCII)
_SHA512: Final = re.compile(
    r"\$6\$(?:rounds=(?P<rounds>[1-9][0-9]{3,8})\$)?[./0-9A-Za-z]{8,16}\$[./0-9A-Za-z]{86}\Z", re.ASCII
)
_DEFAULT_ROUNDS: Final = 5000
_LEAST_ROUNDS: Final = 5000
_LEAST_COST: Final = 8
#: By kind of file: most rounds of SHA-512 crypt, greatest cost of bcrypt. Each takes 50 to 150 ms of one processor.
_MOST: Final[dict[AccessKind, tuple[int, int]]] = {"htpasswd": (100_000, 12), "haproxy": (10_000, 8)}


def hash_problem(hash: str, kind: AccessKind) -> str:
    """Return why a hash is not let into a file; empty where it is. The text has nothing of the hash."""
    most_rounds, most_cost = _MOST[kind]
    if found := _BCRYPT.match(hash):
        cost = int(found["cost"])
        if not _LEAST_COST <= cost <= most_cost:
            return f"bcrypt with cost {cost}: expected {_LEAST_COST} to {most_cost} for {kind}"
        return ""
    if found := _SHA512.match(hash):
        rounds = int(found["rounds"] or _DEFAULT_ROUNDS)
        if not _LEAST_ROUNDS <= rounds <= most_rounds:
            return f"SHA-512 crypt with {rounds} rounds: expected {_LEAST_ROUNDS} to {most_rounds} for {kind}"
        return ""
    return "the password hash is neither SHA-512 crypt ($6$) nor bcrypt ($2b$)"


__all__ = ["hash_problem"]
