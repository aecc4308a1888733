"""Pages and API answers of the console with a large fleet: bytes, time, and the first paint in Chromium.

`python tests/benchmarks/bench_pages.py [--nodes N] [--sites N] [--rounds N] [--check]`

The whole console (pages, API, login, headers) runs in a process of its own on a real database. Bytes are those of the
body on the wire. With `--check` the exit code is 1 where the first view has more than 40 kB or 5 requests, asks another
host, paints later than 300 ms (median), or the console needs more than 300 MiB.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import attrs
import httpx

if TYPE_CHECKING:
    from playwright.sync_api import Response

#: Bytes, requests, milliseconds to the first paint, MiB.
LIMITS = (40_000, 5, 300.0, 300.0)
PATHS = (
    "/",
    "/fleet",
    "/sites/site00",
    "/nodes",
    "/nodes/node0000",
    "/refs/repo00",
    "/history",
    "/api/v1/sites",
    "/api/v1/sites/site00/nodes?limit=500",
    "/api/v1/nodes?limit=100",
    "/api/v1/problems",
)


@attrs.frozen(kw_only=True, slots=True)
class FirstView:
    """What a browser needed for the first page. `paint`: milliseconds to the first contentful paint."""

    requests: int
    size: int
    hosts: frozenset[str]
    paint: float


def serve(nodes: int, sites: int) -> int:
    """Run the console in this process until standard input ends."""
    from deploykit.daemons.service.metrics import Metrics
    from deploykit.names import parse_node_name
    from deploykit.settings.node import Settings
    from deploykit.settings.service import parse_listen_address
    from deploykit.web.assembly import assemble
    from deploykit.web.context import ConsoleContext
    from deploykit.web.listener import SharedListener
    from deploykit.web.live.events import EventRing
    from deploykit.web.login.console import ConsoleLogin
    from deploykit.web.projection.heard import Heard
    from deploykit.web.projection.store import Store
    from deploykit.web.server import WebServer
    from tests.benchmarks.bench_projection import descriptions
    from tests.support.webworld import NOW, healthy

    def now() -> datetime:
        return NOW + timedelta(seconds=time.monotonic() - began)

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as state:
        settings = Settings(node=parse_node_name("console"), state=Path(state))
        store = Store.open(settings.web, settings.state, now=now)
        batch = []
        for message in descriptions(nodes, sites, 1):
            batch.append(Heard(message=message, received=message.time))
            if len(batch) == 100:
                store.apply(batch)
                batch = []
        store.apply(batch)
        ring, login = EventRing(1), ConsoleLogin(settings.web)
        context = ConsoleContext(settings=settings, queries=store.queries(healthy), events=ring, now=now)
        listener = SharedListener(parse_listen_address("127.0.0.1:0"), setting="[web] listen")
        with WebServer(assemble(context, login, Metrics()), listener, on_ending=ring.close) as server:
            print(f"http://localhost:{urlsplit(server.url).port}", flush=True)
            sys.stdin.readline()
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)
        login.close()
        store.close()
    return 0


@contextmanager
def console(nodes: int, sites: int) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start the console; yield where it is, and its process."""
    root = Path(__file__).parents[2]
    argv = [sys.executable, __file__, "--serve", f"--nodes={nodes}", f"--sites={sites}"]
    env = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
        if process.stdin is not None:
            process.stdin.close()


def measure(url: str, rounds: int) -> None:
    """Print time and size of each path."""
    with httpx.Client(base_url=url, headers={"Accept-Encoding": "gzip"}, timeout=60) as client:
        for path in PATHS:
            times = []
            for _ in range(rounds):
                began = time.perf_counter()
                with client.stream("GET", path) as answer:
                    size = sum(len(part) for part in answer.iter_raw())
                times.append((time.perf_counter() - began) * 1000)
            print(
                f"{path:42} {answer.status_code}  {size:8} bytes {answer.headers.get('content-encoding', ''):5}"
                f"  p50 {statistics.median(times):6.0f} ms  worst {max(times):6.0f} ms",
                flush=True,
            )


def first_view(url: str) -> FirstView:
    """Load the first page in a fresh profile of Chromium."""
    from tests.support.browser import chromium, tab

    with chromium() as browser, tab(browser) as opened:
        sizes: dict[str, int] = {}

        def answered(answer: Response) -> None:
            sizes[answer.url] = int(answer.headers.get("content-length", 0))

        opened.page.on("response", answered)
        opened.page.goto(url, wait_until="load")
        paint = opened.page.evaluate(
            "new Promise(done => new PerformanceObserver(list => done(list.getEntriesByName("
            "'first-contentful-paint')[0].startTime)).observe({type: 'paint', buffered: true}))"
        )
        shown = [address for address in opened.requests if "/api/v1/events" not in address]
        return FirstView(
            requests=len(shown),
            size=sum(sizes.get(address, 0) for address in shown),
            hosts=frozenset(urlsplit(address).netloc for address in opened.requests),
            paint=float(paint),
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--sites", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--check", action="store_true", help="fail above a limit")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.nodes, options.sites)
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; "
        f"{options.nodes} nodes, {options.sites} sites; {datetime.now(UTC):%Y-%m-%d}"
    )
    began = time.monotonic()
    with console(options.nodes, options.sites) as (url, process):
        print(f"the database was filled in {time.monotonic() - began:.0f} s", flush=True)
        measure(url, options.rounds)
        views = [first_view(url) for _ in range(5)]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("end\n")
        process.stdin.flush()
        memory = float(process.stdout.readline())
    view, paint = views[0], statistics.median(each.paint for each in views)
    print(
        f"first view: {view.requests} requests, {view.size} bytes, paint p50 {paint:.0f} ms; "
        f"hosts {', '.join(sorted(view.hosts))}; console {memory:.0f} MiB"
    )
    most = (view.size, view.requests, paint, memory)
    good = len(view.hosts) == 1 and all(each <= limit for each, limit in zip(most, LIMITS, strict=True))
    return 1 if options.check and not good else 0


if __name__ == "__main__":
    sys.exit(main())
