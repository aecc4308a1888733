"""What a chaos run is asked for, and what comes out of it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import attrs

from tests.chaos.accounts import Verdict
from tests.support.wait import wait_until

#: What a run can do without, where the rest is to be looked at alone.
FEATURES = ("addresses", "handlers", "certificates", "stranger", "full-disk")
#: How the run itself is broken on purpose, to see that its books notice.
SABOTAGES = ("lose", "swap", "invent", "steal")


@attrs.frozen(kw_only=True, slots=True)
class Options:
    """How one run goes.

    Args:
        seconds: for how long things are broken, without start and settling.
        seed: of the schedules.
        rate: messages a second of each writer.
        settle: seconds without any progress after which what is missing counts as lost.
        features: those of `FEATURES` that are on.
        sabotage: one of `SABOTAGES`, or nothing.
    """

    seconds: float = 60.0
    seed: int = 1
    rate: float = 100.0
    settle: float = 60.0
    features: frozenset[str] = frozenset(FEATURES)
    sabotage: str = ""


@attrs.define(kw_only=True, slots=True)
class Outcome:
    """What came of one run: the books' verdict, what else is wrong, and figures for the report."""

    scenario: str
    verdict: Verdict
    violations: list[str]
    figures: dict[str, int] = attrs.field(factory=dict)


def body_of(identity: str) -> bytes:
    """Return the body that a message has: mostly short, sometimes of 100 kB, always the same.

    >>> body_of("a") == body_of("a") != body_of("b")
    True
    """
    dice = random.Random(identity)
    size = dice.choice((0, 10, 100, 1000)) if dice.random() < 0.99 else 100_000
    return f"{identity}\n".encode() + dice.randbytes(size)


@attrs.frozen(slots=True)
class Use:
    """What this process uses at the moment."""

    threads: int
    files: int
    megabytes: int

    @staticmethod
    def now() -> Use:
        """Look."""
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
        return Use(
            threads=int(status["Threads"]),
            files=len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - names are enough
            megabytes=int(status["VmRSS"].split()[0]) // 1024,
        )


def grown(before: Use, messages: int) -> list[str]:
    """Say what grew since `before`, after time for it to shrink. The books themselves take some kB a message."""
    limit = before.megabytes + 100 + messages * 3 // 1000

    def fits() -> bool:
        now = Use.now()
        return now.threads <= before.threads and now.files <= before.files + 2 and now.megabytes <= limit

    try:
        wait_until(fits, timeout=30)
    except AssertionError:
        return [f"threads, files or memory grew: {before}, then {Use.now()} after {messages} messages"]
    return []


def come_to_rest(backlog: Callable[[], int], patience: float) -> bool:
    """Wait until `backlog()` is 0; return whether it is.

    Return False when it did not change for `patience` seconds, or did not come to 0 in five times that.
    """
    last, begin = backlog(), time.monotonic()
    since = begin
    while last:
        time.sleep(0.05)
        now, left = time.monotonic(), backlog()
        if left != last:
            last, since = left, now
        if now - since > patience or now - begin > 5 * patience:
            return False
    return True
