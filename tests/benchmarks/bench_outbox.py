"""What the outbox costs on a push's path, and what a backlog costs a relay.

`python tests/benchmarks/bench_outbox.py [--rounds N] [--where DIR] [--backlog N]`

Competitors take turns within each round; ratios are taken per round and their medians shown:

* one durable file by hand (write, fsync, rename, fsync of the directory) beside `Outbox.put_many` of 1, 20 and 2,000
  messages of 1 KB: the disk is the price, the outbox should add little;
* an interpreter that does nothing beside one that imports the outbox and queues a message, both started afresh;
* reading a backlog in order beside `os.listdir` and a plain read of the same files.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

from deploykit.outbox import Outbox, Outgoing
from deploykit.wire.frame import Frame

BODY = b"x" * 1024
QUEUE = "from deploykit.outbox import Outbox\nfrom deploykit.wire.frame import Frame\nimport sys\n"
QUEUE += "Outbox(sys.argv[1]).put('/topic/a', Frame({'subject': 'x'}, b'x' * 1024))"


def frames(number: int) -> list[Outgoing]:
    return [Outgoing("/topic/a", Frame({"subject": f"number {n}"}, BODY)) for n in range(number)]


def by_hand(directory: Path, data: bytes) -> None:
    """The least that makes a file durable."""
    fd = os.open(directory / "tmp", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(fd, data)
    os.fsync(fd)
    os.close(fd)
    (directory / "tmp").rename(directory / f"{time.time_ns()}")
    fd = os.open(directory, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def compare(rounds: int, ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, float, float]:
    """Medians of both in seconds, and of the ratio; who goes first changes every round."""
    a: list[float] = []
    b: list[float] = []
    for number in range(rounds):
        for _, (times, action) in sorted(enumerate(((a, ours), (b, theirs))), reverse=bool(number % 2)):
            times.append(seconds(action))
    return statistics.median(a), statistics.median(b), statistics.median(x / y for x, y in zip(a, b, strict=True))


def line(name: str, ours: float, theirs: float, ratio: float) -> None:
    print(f"{name:<46} {ours * 1e3:9.2f} ms {theirs * 1e3:9.2f} ms  {ratio:5.2f} x")


def fill(box: Outbox, number: int) -> None:
    """Queue records without waiting for the disk, which is not what is measured here."""
    with mock.patch("os.fsync"):
        for n in range(number):
            box.put(f"/topic/{n % 3}", Frame({"subject": f"number {n}"}, BODY))


def read_plainly(directory: str) -> int:
    return sum(len(path.read_bytes()) > 0 for path in sorted(Path(directory).glob("[0-9]*.rec")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--where", type=Path, default=None, help="a directory on the file system to measure")
    parser.add_argument("--backlog", type=int, default=20_000)
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="bench-outbox-", dir=options.where))
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {place}, {options.rounds} rounds\n")
    print(f"{'':<46} {'outbox':>12} {'beside':>12}")
    try:
        plain = place / "plain"
        plain.mkdir()
        for number in (1, 20, 2000):
            items = frames(number)
            box = Outbox(place / f"spool-{number}")
            data = BODY * number
            times = compare(options.rounds, partial(box.put_many, items), partial(by_hand, plain, data))
            line(f"put_many of {number} beside one durable file", *times)
        started = Outbox(place / "started")
        line(
            "a process that queues one beside an empty one",
            *compare(
                options.rounds,
                lambda: subprocess.run([sys.executable, "-c", QUEUE, started.path], check=True),
                lambda: subprocess.run([sys.executable, "-c", "pass"], check=True),
            ),
        )
        backlog = Outbox(place / "backlog")
        fill(backlog, options.backlog)
        line(
            f"{options.backlog} records read beside listdir and read",
            *compare(7, lambda: sum(1 for _ in backlog.pending()), lambda: read_plainly(backlog.path)),
        )
        spent = time.process_time()
        spent_wall = time.perf_counter()
        for record in backlog.pending():
            backlog.ack(record)
        spent, spent_wall = time.process_time() - spent, time.perf_counter() - spent_wall
        each = 1e6 / options.backlog
        print(f"read and settle, each: {spent * each:.0f} us of CPU, {spent_wall * each:.0f} us by the clock")
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
