"""How often somebody may try a password. Use it from any thread.

Rules:

* An attempt is counted before the password is compared, so that many at once do not get through; a success gives back.
* Three limits: a name from one peer, a peer, a name from everywhere. The last one does not stop a peer from which the
  name logged in before: whoever tries many passwords must not lock its owner out.
* Memory is bounded, whatever names and peers come.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Final

import attrs

#: Keys of one kind that are remembered; the one that was used least recently is forgotten.
MOST_KEYS: Final = 10_000
#: Characters of a name that tell it from others: a form may have one of 64 KiB, from each of many peers.
_MOST_NAME: Final = 256


@attrs.frozen(kw_only=True, slots=True)
class Allowance:
    """So many attempts at once, and one more after each `seconds`."""

    burst: int
    seconds: float


NAME_AT_PEER: Final = Allowance(burst=5, seconds=30)
PEER: Final = Allowance(burst=30, seconds=5)
NAME: Final = Allowance(burst=60, seconds=10)


class KeyedLimit:
    """One allowance for each key. Not locked: its owner is."""

    def __init__(self, allowance: Allowance, most: int = MOST_KEYS) -> None:
        self._allowance = allowance
        self._most = most
        # When the allowance of a key is whole again; a key that is absent has all of it.
        self._whole_at: OrderedDict[Hashable, float] = OrderedDict()

    def wait(self, key: Hashable, now: float) -> float:
        """Return the seconds until the key may be taken; 0: now."""
        debt = max(self._whole_at.get(key, now) - now, 0.0)
        return max(debt - (self._allowance.burst - 1) * self._allowance.seconds, 0.0)

    def take(self, key: Hashable, now: float) -> None:
        """Count one attempt."""
        self._whole_at[key] = max(self._whole_at.get(key, now), now) + self._allowance.seconds
        self._whole_at.move_to_end(key)
        while len(self._whole_at) > self._most:
            self._whole_at.popitem(last=False)

    def give_back(self, key: Hashable) -> None:
        """Undo one attempt."""
        if key in self._whole_at:
            self._whole_at[key] -= self._allowance.seconds

    def __len__(self) -> int:
        return len(self._whole_at)


class PeerLimit:
    """How often a peer may do something that needs no name: a step of a login, a token that does not count.

    Args:
        clock: monotonic seconds.
        allowance: of each peer.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, allowance: Allowance = PEER) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._peers = KeyedLimit(allowance)

    def attempt(self, peer: str) -> float:
        """Count an attempt and return 0, or return the seconds to wait, and count nothing."""
        now = self._clock()
        with self._lock:
            wait = self._peers.wait(peer, now)
            if wait == 0:
                self._peers.take(peer, now)
            return wait


class LoginLimits:
    """The three limits together."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._pairs, self._peers, self._names = KeyedLimit(NAME_AT_PEER), KeyedLimit(PEER), KeyedLimit(NAME)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def attempt(self, name: str, peer: str) -> float:
        """Count an attempt and return 0, or return the seconds to wait, and count nothing."""
        now, name = self._clock(), name[:_MOST_NAME]
        with self._lock:
            wait = max(limit.wait(key, now) for limit, key in self._limits(name, peer))
            if wait == 0:
                for limit, key in self._limits(name, peer):
                    limit.take(key, now)
            return wait

    def succeeded(self, name: str, peer: str) -> None:
        """Give an attempt back, and remember that the name logs in from there."""
        name = name[:_MOST_NAME]
        with self._lock:
            for limit, key in self._limits(name, peer):
                limit.give_back(key)
            self._known[name, peer] = None
            self._known.move_to_end((name, peer))
            while len(self._known) > MOST_KEYS:
                self._known.popitem(last=False)

    def _limits(self, name: str, peer: str) -> Iterator[tuple[KeyedLimit, Hashable]]:
        yield self._pairs, (name, peer)
        yield self._peers, peer
        if (name, peer) not in self._known:
            yield self._names, name


__all__ = ["MOST_KEYS", "NAME", "NAME_AT_PEER", "PEER", "Allowance", "KeyedLimit", "LoginLimits", "PeerLimit"]
