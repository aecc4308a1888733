"""A large backlog: read and relayed in order, in flat memory. CI has a fifth of it, `nox -s sweep` all of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.killsweep import sample_size

WHOLE = sample_size() is None
BACKLOG = 100_000 if WHOLE else 20_000
SMALL = 2_000
#: What the larger one may take more, in KiB: less than the names of its records alone would take.
ALLOWED = 4096 if WHOLE else 1024

FILL = """
import os, sys
from deploykit.outbox import Outbox, Outgoing
from deploykit.wire.frame import Frame
os.fsync = lambda fd: None  # the disk is not what is tried here
box, number = Outbox(sys.argv[1]), int(sys.argv[2])
body = b"x" * 1000
for n in range(number):
    box.put("/topic/%d" % (n % 3), Frame({"subject": "number %d" % n}, b"%07d " % n + body))
"""

MEASURED = """
import json, resource, sys, time
from concurrent.futures import Future
from deploykit.outbox.relay import Relay
from deploykit.outbox import Outbox

def peak_kb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

class Counting:
    def __init__(self):
        self.count = 0
        self.last = {}
        self.ordered = True
    def take(self, destination, body):
        number = int(body[:7])
        self.ordered &= number > self.last.get(destination, -1)
        self.last[destination] = number
        self.count += 1
    def publish_nowait(self, destination, frame):
        self.take(destination, frame.body)
        future = Future()
        future.set_result(None)
        return future
    def wait_connected(self, timeout):
        return True

box = Outbox(sys.argv[1])
before, start = peak_kb(), time.monotonic()
seen = Counting()
if sys.argv[2] == "read":
    for record in box.pending():
        seen.take(record.destination, record.frame.body)
else:
    assert Relay(box, seen).drain_once(3000).complete
print(json.dumps({"count": seen.count, "ordered": seen.ordered, "grown_kb": peak_kb() - before,
                  "seconds": time.monotonic() - start}))
"""


def python(code: str, *args: object) -> str:
    done = subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def measure(spool: Path, what: str) -> dict[str, float]:
    found: dict[str, float] = json.loads(python(MEASURED, spool, what))
    return found


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_large_backlog_is_read_and_relayed_in_order_in_flat_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python(FILL, tmp_path / "small", SMALL)
    python(FILL, tmp_path / "large", BACKLOG)
    report = []
    for what in ("read", "relay"):
        small, large = measure(tmp_path / "small", what), measure(tmp_path / "large", what)
        assert (small["count"], large["count"]) == (SMALL, BACKLOG)
        assert small["ordered"]
        assert large["ordered"]
        assert large["grown_kb"] - small["grown_kb"] < ALLOWED, (small, large)
        report.append(f"{what} {BACKLOG / large['seconds']:,.0f}/s, {large['grown_kb'] - small['grown_kb']} KiB more")
    with capsys.disabled():
        print(f"\nbacklog of {BACKLOG}: {'; '.join(report)} than {SMALL}")
    assert not list((tmp_path / "large").glob("*.rec"))
