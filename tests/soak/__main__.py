"""Run the daemons under load, and say whether memory, descriptors and threads stay flat; exit 1 where they grow.

    nox -s soak                                      15 minutes on the embedded broker
    nox -s soak -- --minutes 60 --broker rabbitmq    longer, on a real one
    nox -s soak -- --daemons agent relay             some of them

Each daemon is a process of its own; `run` is several in one process. All work at once. The load: pushes that are
fetched and built, signed deploys that are waited for, records in spools, pages that are asked, HUP every minute.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

from deploykit.broker.server import EmbeddedBroker
from tests.brokers import rabbitmq
from tests.brokers.rabbitmq import RabbitMQ
from tests.soak.daemons import DAEMONS, DaemonProcess, available
from tests.soak.flatness import ALLOWED
from tests.soak.measure import Series, table
from tests.soak.world import SoakWorld
from tests.support.wait import wait_until

#: Which node a daemon belongs to: those of one node share state and spool.
NODES = {"agent": "web1", "jenkins": "web1", "relay": "hooks", "run": "web2"}


@attrs.frozen(kw_only=True, slots=True)
class SoakOptions:
    """How one soak goes: seconds in all, between two measurements, two rounds of load, and two reloads (0: none)."""

    daemons: tuple[str, ...]
    broker: str = "embedded"
    seconds: float = 900.0
    every: float = 3.0
    pause: float = 1.5
    reload: float = 60.0


@attrs.frozen(kw_only=True, slots=True)
class SoakOutcome:
    """What came of a soak: a series a daemon, what was done meanwhile, and what is wrong beside the series."""

    series: tuple[Series, ...]
    counts: dict[str, int]
    wrong: tuple[str, ...]

    @property
    def flat(self) -> bool:
        """Whether nothing grew and nothing else is wrong."""
        return not self.wrong and all(f.flat for each in self.series for f in each.findings().values())


@contextlib.contextmanager
def broker_of(kind: str) -> Iterator[str]:
    """Start a broker; yield its address."""
    if kind == "rabbitmq":
        rabbitmq.check_installed()
        with RabbitMQ() as server:
            yield server.address
    else:
        with EmbeddedBroker() as embedded:
            yield embedded.address


def soak(options: SoakOptions, root: Path) -> SoakOutcome:
    """Run the daemons in `root`, load and measure them."""
    with broker_of(options.broker) as address, SoakWorld(root, address) as world, contextlib.ExitStack() as stack:
        configs = {
            node: world.settings(node, tuple(d for d in options.daemons if NODES[d] == node))
            for node in sorted({NODES[name] for name in options.daemons})
        }
        processes: list[DaemonProcess] = []
        for name in options.daemons:
            process = DaemonProcess(name, configs[NODES[name]], root / f"{name}.log")
            stack.callback(process.stop)
            processes.append(process)
        for process in processes:
            process.wait_ready()
        series = {process.name: Series(name=process.name) for process in processes}
        wrong = _load(options, world, processes, series)
        for process in processes:
            if code := process.stop():
                wrong.append(f"{process.name} ended with {code} on TERM:\n{process.log_tail()}")
        wrong += [f"{count}: nothing was done" for count in _missing(options, world)]
    return SoakOutcome(series=tuple(series.values()), counts=world.counts, wrong=tuple(wrong))


def _load(
    options: SoakOptions, world: SoakWorld, processes: list[DaemonProcess], series: dict[str, Series]
) -> list[str]:
    """Load and measure until the time is over; return what went wrong."""
    wrong: list[str] = []
    begin = time.monotonic()
    measured, reloaded, rounds = begin, begin, 0
    while (now := time.monotonic()) < begin + options.seconds or rounds < 2:  # a busy machine needs long for one
        rounds += 1
        world.push()
        for process in processes:
            takes, node = DAEMONS[process.name].takes, NODES[process.name]
            if "deploy" in takes:
                world.deploy(node)
            if "spool" in takes:
                world.put(node)
            process.check()
        if now >= measured:
            measured = now + options.every
            for process in processes:
                wrong += [text for text in (_ask(world, process.name),) if text and text not in wrong]
                series[process.name].measure(process.pid)
        if options.reload and now >= reloaded + options.reload:
            reloaded = now
            for process in processes:
                process.reload()
        time.sleep(max(0.0, now + options.pause - time.monotonic()))
    if any("build" in DAEMONS[process.name].takes for process in processes):
        with contextlib.suppress(AssertionError):
            wait_until(lambda: world.count_builds() <= 1, timeout=60)
        if (behind := world.count_builds()) > options.seconds / 20 + 3:
            wrong.append(f"builds: {behind} pushes started none")
    for process in processes:
        node = NODES[process.name]
        with contextlib.suppress(AssertionError):  # what is under way at the end comes, on a busy machine later
            wait_until(lambda node=node: world.waiting(node) == 0, timeout=60)  # type: ignore[misc]  # mypy cannot infer it
        if left := world.waiting(node):
            wrong.append(f"{process.name}: {left} records wait at the end")
    return wrong


def _ask(world: SoakWorld, name: str) -> str:
    """Ask a daemon's pages; return what is wrong, empty for nothing. While it reloads it may be not ready."""
    for path, wanted in (("/live", b" 200 "), ("/metrics", b" 200 "), ("/ready", b" ")):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            try:
                connection.connect(str(world.pages(name, NODES[name])))
                connection.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode())
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
            except OSError as error:
                return f"{name}: {path}: {error}"
        if wanted not in answer.split(b"\n", 1)[0]:
            return f"{name}: {path}: {answer[:200]!r}"
    return ""


def _missing(options: SoakOptions, world: SoakWorld) -> list[str]:
    """Return the counts that ought not to be 0."""
    takes = frozenset[str]().union(*(DAEMONS[name].takes for name in options.daemons))
    wanted = {"push": "mirror reports", "deploy": "deploys done", "spool": "records", "build": "builds"}
    return [count for take, count in wanted.items() if take in takes and not world.counts[count]]


def main(argv: list[str] | None = None) -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    there = available()
    parser.add_argument("--minutes", type=float, default=15.0, help="how long (default 15)")
    parser.add_argument("--broker", choices=("embedded", "rabbitmq"), default="embedded")
    parser.add_argument("--daemons", nargs="+", choices=there, default=there, help=f"some of {', '.join(there)}")
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two measurements (default 3)")
    parser.add_argument("--reload", type=float, default=60.0, help="seconds between two HUPs (default 60; 0: none)")
    parser.add_argument("--out", type=Path, help="write every measurement to this file, as JSON")
    asked = parser.parse_args(argv)
    options = SoakOptions(
        daemons=tuple(asked.daemons),
        broker=asked.broker,
        seconds=60 * asked.minutes,
        every=asked.every,
        reload=asked.reload,
    )
    root = Path(tempfile.mkdtemp(prefix="dk-soak-"))
    try:
        outcome = soak(options, root)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if asked.out is not None:
        asked.out.write_text(json.dumps([attrs.asdict(each) for each in outcome.series]), encoding="utf-8")
    print(table(outcome.series))
    print(f"\n{asked.minutes:g} minutes on {asked.broker}: " + ", ".join(f"{n} {c}" for c, n in outcome.counts.items()))
    print("allowed in the second half: " + ", ".join(f"{q} {a:g} or {p:.1%}" for q, (a, p) in ALLOWED.items()))
    for text in outcome.wrong:
        print(f"WRONG: {text}")
    return 0 if outcome.flat else 1


if __name__ == "__main__":
    sys.exit(main())
