"""A wall clock that is set an hour back or forth, while a bus works: times are measured, not read off a clock."""

from __future__ import annotations

import os
import subprocess
import sys

# In a process of its own, so that `time.time` is replaced before anybody has taken it.
_SCRIPT = """
import time
real, shift = time.time, 0.0
time.time = lambda: real() + shift
time.time_ns = lambda: int((real() + shift) * 1e9)

import tempfile
from pathlib import Path
from deploykit.bus import Retry
from deploykit.outbox.relay import Relay
from deploykit.errors import PublishError
from deploykit.outbox import Outbox
from deploykit.broker.server import EmbeddedBroker
from tests.support.bus import Collector, fast, quiet, running, text
from tests.support.wait import wait_until

handled = Collector(lambda delivery: Retry(0.1) if delivery.attempt == 1 else None)
with tempfile.TemporaryDirectory() as place, EmbeddedBroker() as broker, running(
    fast(broker.address, heartbeat=1.0)
) as bus:
    outbox = Outbox(Path(place) / "spool", shared=False)
    bus.subscribe("/queue/q", handled)
    for number, shift in enumerate((0.0, 3600.0, -3600.0, 7200.0)):
        bus.publish("/queue/q", text(f"direct {number}"), timeout=60)
        outbox.put("/queue/q", text(f"kept {number}"))
        assert Relay(outbox, bus).drain_once(60).complete
        wait_until(lambda: handled.bodies.count(f"kept {number}") == 2, "a second attempt", 60)
        broker.faults.withhold_receipts()
        began = time.monotonic()
        try:
            bus.publish("/queue/other", text("x"), timeout=0.3)
        except PublishError:
            assert 0.25 < time.monotonic() - began < 60, "the deadline was read off the clock"
        else:
            raise AssertionError("confirmed by nobody")
        broker.faults.withhold_receipts(False)
        quiet(bus.counters, 1.0)  # it was silent for an hour, by the clock
    first = [body for delivery, body in zip(handled.deliveries, handled.bodies) if delivery.attempt == 1]
    assert first == [f"{kind} {number}" for number in range(4) for kind in ("direct", "kept")], first
print("well")
"""


def test_a_clock_that_is_set_an_hour_disturbs_neither_bus_nor_relay() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "well\n", done.stderr
