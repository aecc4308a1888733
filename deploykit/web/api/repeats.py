"""`Idempotency-Key`: a request that is sent again gets the answer of the first time, and does nothing twice.

Rules:

* A key belongs to the viewer. The same key with another request is a mistake of the caller: 422.
* While the first request is at work, a second one gets 409. So does one whose first died in the middle: whether it
  did something is then seen in the list of deploys, not guessed.
* What was refused did nothing, so it is forgotten: the same key may be tried again.
* No secret is kept: an answer that shows one for the one time is kept without it.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import Final, Protocol

import attrs

from deploykit.web.api.problems import ParameterProblem, RequestRefused
from deploykit.web.ledger.answers import KeptAnswer

HEADER: Final = "Idempotency-Key"
_MOST_CHARACTERS: Final = 200
#: Keys that are remembered where there is no ledger.
_MOST_REMEMBERED: Final = 1000


class AnswerBook(Protocol):
    """Where answers are kept: `ledger.answers`, so that every console on the database knows them."""

    def begin(self, key: str, request: str) -> KeptAnswer | None:
        """Take a key for a request; return what is known of it where it is taken already."""

    def finish(self, key: str, status: int, *, location: str = "", body: str = "") -> None:
        """Keep the answer to a request that was done."""

    def drop(self, key: str) -> None:
        """Give a key back: what was asked has not been done."""


class AnswersInMemory:
    """Answers of a console without a ledger: they last as long as its process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: OrderedDict[str, KeptAnswer] = OrderedDict()

    def begin(self, key: str, request: str) -> KeptAnswer | None:
        """Take a key for a request; return what is known of it where it is taken already."""
        with self._lock:
            known = self._answers.get(key)
            if known is None:
                self._answers[key] = KeptAnswer(request=request)
                while len(self._answers) > _MOST_REMEMBERED:
                    self._answers.popitem(last=False)
            return known

    def finish(self, key: str, status: int, *, location: str = "", body: str = "") -> None:
        """Keep the answer to a request that was done."""
        with self._lock:
            if key in self._answers:
                self._answers[key] = attrs.evolve(self._answers[key], status=status, location=location, body=body)

    def drop(self, key: str) -> None:
        """Give a key back: what was asked has not been done."""
        with self._lock:
            self._answers.pop(key, None)


def given_key(values: list[str]) -> str:
    """Return the key of a request, as its header has it; empty where it has none.

    Raises:
        RequestRefused: it is no key.
    """
    if not values:
        return ""
    key = values[0].strip().strip('"')
    if len(values) > 1 or not key or len(key) > _MOST_CHARACTERS or not (key.isascii() and key.isprintable()):
        wrong = f"expected once, 1 to {_MOST_CHARACTERS} printed ASCII characters"
        raise RequestRefused(422, f"{HEADER}: {wrong}", parameters=(ParameterProblem(parameter=HEADER, detail=wrong),))
    return key


def key_digest(viewer: str, key: str) -> str:
    """Return under what the key of a viewer is kept."""
    return hashlib.sha256(f"{len(viewer)}:{viewer}\0{key}".encode(errors="surrogatepass")).hexdigest()


def request_digest(method: str, target: str, body: bytes) -> str:
    """Return what two requests have in common where they ask for the same."""
    return hashlib.sha256(f"{method} {target}\0".encode(errors="surrogatepass") + body).hexdigest()


def answer_again(known: KeptAnswer, request: str) -> KeptAnswer:
    """Return the answer that was kept, for a request with the same key.

    Raises:
        RequestRefused: 422, the request is another one; 409, there is no answer yet.
    """
    if known.request != request:
        wrong = "it was used for another request; take a new one"
        raise RequestRefused(422, f"{HEADER}: {wrong}", parameters=(ParameterProblem(parameter=HEADER, detail=wrong),))
    if not known.status:
        raise RequestRefused(
            409,
            f"a request with this {HEADER} is at work, or its console died with it; see the list of deploys",
            retry_after=2,
        )
    return known


__all__ = [
    "HEADER",
    "AnswerBook",
    "AnswersInMemory",
    "answer_again",
    "given_key",
    "key_digest",
    "request_digest",
]
