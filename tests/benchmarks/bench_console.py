"""Event streams of many browsers, over real HTTP: latency, memory and CPU of the console.

`python tests/benchmarks/bench_console.py [--readers N] [--rate N] [--seconds S] [--check]`

The console runs in a process of its own; the readers in another, on plain sockets. Each event carries the time at which
it was added; a reader's latency is the time from there to its bytes in the reader. No event may be lost. With `--check`
the exit code is 1 where p99 is above 100 ms, the console's memory above 80 MiB, or an event is lost.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import selectors
import socket
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import attrs

#: Seconds, MiB.
LIMITS = (0.1, 80.0)
_EVENT_TEXT = "web1: step fetch done in 1.2 s, 14 objects, 32 kB"


@attrs.define(kw_only=True)
class StreamFigures:
    """What readers saw."""

    latencies: list[float]
    lost: int


def serve(rate: int, seconds: float, readers: int) -> int:
    """Run the console of the benchmark in this process; figures on standard output."""
    from deploykit.web.live.events import EventRing
    from tests.support.consoleserver import address_of, api_alone, serving
    from tests.support.smallworld import small_world

    ring = EventRing(1)
    app = api_alone(small_world(), ring)
    with serving(app, on_ending=ring.close) as server:
        print(address_of(server)[1], flush=True)
        sys.stdin.readline()
        broadcast = app.state.broadcast
        assert len(broadcast) == readers, len(broadcast)
        cpu = time.process_time()
        began = time.monotonic()
        count = int(rate * seconds)
        for number in range(count):
            wait = began + number / rate - time.monotonic()
            if wait > 0:
                time.sleep(wait)  # the rate of the load, not a synchronisation
            data = {"at": time.monotonic(), "node": "web1", "text": _EVENT_TEXT}
            ring.add("log", datetime.now(UTC), site="shop", data=data)
        used = time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            json.dumps({"events": count, "cpu": used, "seconds": time.monotonic() - began, "memory": peak}), flush=True
        )
        sys.stdin.readline()
    return 0


def read(port: int, readers: int, events: int, started: subprocess.Popen[str]) -> StreamFigures:
    """Read all events with all readers; the console begins once all are open."""
    chosen = selectors.DefaultSelector()
    pending: dict[socket.socket, bytes] = {}
    counts: dict[socket.socket, int] = {}
    for _ in range(readers):
        opened = socket.create_connection(("127.0.0.1", port))
        opened.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = b""
        while b"retry: " not in head:
            head += opened.recv(1 << 16)
        opened.setblocking(False)
        pending[opened], counts[opened] = b"", 0
        chosen.register(opened, selectors.EVENT_READ)
    assert started.stdin is not None
    started.stdin.write("go\n")
    started.stdin.flush()
    latencies: list[float] = []
    deadline = time.monotonic() + 120
    while sum(counts.values()) < readers * events and time.monotonic() < deadline:
        for key, _ in chosen.select(1):
            assert isinstance(key.fileobj, socket.socket)
            client = key.fileobj
            now = time.monotonic()
            *blocks, pending[client] = (pending[client] + client.recv(1 << 18)).split(b"\n\n")
            for block in blocks:
                stamp = block.partition(b'"at": ')[2].partition(b",")[0]
                if stamp:
                    latencies.append(now - float(stamp))
                    counts[client] += 1
    for opened in counts:
        opened.close()
    return StreamFigures(latencies=latencies, lost=readers * events - sum(counts.values()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readers", type=int, default=100)
    parser.add_argument("--rate", type=int, default=300, help="events a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--check", action="store_true", help="fail above a limit")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.rate, options.seconds, options.readers)
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; "
        f"{options.readers} readers, {options.rate} events/s for {options.seconds:g} s"
    )
    argv = [sys.executable, __file__, "--serve", f"--rate={options.rate}", f"--seconds={options.seconds}"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [*argv, f"--readers={options.readers}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as console:
        assert console.stdout is not None
        port = int(console.stdout.readline())
        seen = read(port, options.readers, int(options.rate * options.seconds), console)
        own = json.loads(console.stdout.readline())
    cuts = statistics.quantiles(seen.latencies, n=100)
    middle, late, worst = (1000 * each for each in (cuts[49], cuts[98], max(seen.latencies)))
    print(f"latency p50 {middle:.0f} ms, p99 {late:.0f} ms, worst {worst:.0f} ms; lost {seen.lost}")
    print(f"console: {own['memory']:.0f} MiB, CPU {own['cpu']:.1f} s in {own['seconds']:.1f} s")
    good = cuts[98] <= LIMITS[0] and own["memory"] <= LIMITS[1] and not seen.lost
    return 1 if options.check and not good else 0


if __name__ == "__main__":
    sys.exit(main())
