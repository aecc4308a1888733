"""What the wire costs: a push of 20 commits, encoded and decoded by the public API, beside the bare `json` module.

`python tests/benchmarks/bench_wire.py [--json]`. The competitors take turns within each round, so that a noisy machine
hits both; the ratio is taken per round and its median shown. Limits: encode 2 x `json.dumps`, decode 4 x `json.loads`
of the same event. Ends 1 if one is missed.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import deploykit
from deploykit.messages import Commit, RefUpdated
from deploykit.names import parse_object_id, parse_ref_name, parse_repo_name

ROUNDS = 41
LOOPS = 100
LIMITS = {"encode": 2.0, "decode": 4.0}

#: Ordinary commit messages: a title, mostly with a few lines below it, sometimes with brackets, quotes and accents.
TEXTS = (
    "Fix the session fixture shared between workers",
    "Pin the base image\n\nThe floating tag moved under us on Friday.",
    'Say "not found" instead of a bare 500\n\nThe handler swallowed the KeyError. Closes #4711.',
    "[SHOP-1234] Round prices half up\n\nAccounting rounds half up, we rounded half to even [1].\n\n[1] wiki/Rounding",
    "Zähle Bestellungen je Tag, nicht je Abruf\n\nReviewed-by: Jürgen Weiß <jw@example.org>",
)


def push(commits: int) -> RefUpdated:
    """Make a push of so many commits, the same each time."""
    ids = [hashlib.sha1(str(i).encode(), usedforsecurity=False).hexdigest() for i in range(commits + 1)]
    return RefUpdated(
        id="5a9c1e6e-0a2c-4c6f-9a53-3d1f1f0e8a11",
        source="git/git.example.org",
        time=datetime(2026, 11, 23, 7, 50, 4, 123456, tzinfo=UTC),
        correlation_id="5a9c1e6e-0a2c-4c6f-9a53-3d1f1f0e8a11",
        repo=parse_repo_name("shop/frontend"),
        ref=parse_ref_name("refs/heads/main"),
        old=parse_object_id(ids[-1]),
        new=parse_object_id(ids[0]),
        pusher="ann",
        commits=tuple(
            Commit(
                id=parse_object_id(ids[i]),
                author="Ann Example <ann.example@example.org>",
                time=f"2026-11-22T10:{i:02}:07+01:00",
                message=TEXTS[i % len(TEXTS)],
            )
            for i in range(commits)
        ),
        commit_count=commits,
    )


def measure(ours: Callable[[], object], bare: Callable[[], object], loops: int, rounds: int) -> dict[str, float]:
    """Time both in turns; microseconds of CPU a call (nothing here waits), and the median of the rounds' ratios."""
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    for number in range(rounds + 1):
        for name, call in (("ours", ours), ("bare", bare)) if number % 2 else (("bare", bare), ("ours", ours)):
            start = time.process_time()
            for _ in range(loops):
                call()
            if number:  # the first round warms both up
                times[name].append((time.process_time() - start) / loops * 1e6)
    ratios = [a / b for a, b in zip(times["ours"], times["bare"], strict=True)]
    return {
        "us": round(statistics.median(times["ours"]), 2),
        "bare_us": round(statistics.median(times["bare"]), 2),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_worst": round(max(ratios), 2),
    }


def run(commits: int = 20, loops: int = LOOPS, rounds: int = ROUNDS) -> dict[str, object]:
    """Measure both directions; the result is what `--json` prints."""
    message = push(commits)
    frame = deploykit.encode(message)
    event = json.loads(frame.body)
    headers, body = dict(frame.headers), frame.body
    assert deploykit.decode(headers, body) == message
    gc.collect()
    return {
        "commits": commits,
        "body_bytes": len(body),
        "rounds": rounds,
        "python": platform.python_version(),
        "encode": measure(lambda: deploykit.encode(message), lambda: json.dumps(event), loops, rounds),
        "decode": measure(lambda: deploykit.decode(headers, body), lambda: json.loads(body), loops, rounds),
    }


def main() -> int:
    """Print the figures; tell whether the limits held."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--json", action="store_true", help="print one JSON object")
    arguments.add_argument("--commits", type=int, default=20)
    arguments.add_argument("--rounds", type=int, default=ROUNDS)
    arguments.add_argument("--loops", type=int, default=LOOPS)
    chosen = arguments.parse_args()
    result = run(chosen.commits, chosen.loops, chosen.rounds)
    held = True
    for name, limit in LIMITS.items():
        figures = result[name]
        assert isinstance(figures, dict)
        figures["limit"] = limit
        held = held and figures["ratio"] <= limit
    if chosen.json:
        print(json.dumps(result | {"held": held}))
    else:
        print(f"{result['commits']} commits, {result['body_bytes']} bytes, medians of {result['rounds']} rounds")
        for name, bare in (("encode", "json.dumps"), ("decode", "json.loads")):
            f = result[name]
            assert isinstance(f, dict)
            print(
                f"{name}: {f['us']} us, {bare} {f['bare_us']} us: {f['ratio']} x (worst {f['ratio_worst']} x), "
                f"limit {f['limit']} x"
            )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
