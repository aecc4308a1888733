"""How long a forge waits for its answer: a real server, verified, in the outbox by a durable write, and remembered.

`python tests/benchmarks/bench_webhook.py [--requests N] [--clients N] [--where DIR] [--check]`

Each request is a push of GitHub with 20 commits, signed, to a branch of its own. The server is that of
`deploykit webhook`, in a process of its own, with its outbox and its store below DIR. Beside it stands the least that
makes a file durable (write, fsync, rename, fsync of the directory), in the same directory: the disk is the price of a
202.

`--check` fails where p99 of a client alone is over 50 ms.
"""

from __future__ import annotations

import argparse
import http.client
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from deploykit.settings.service import parse_listen_address
from deploykit.testing.forges import ForgedChange, ForgedCommit, ForgedRequest, forged
from deploykit.web.listener import SharedListener
from deploykit.web.server import WebServer
from tests.support.webhooks import SECRETS, ReceiverWorld

LIMIT_MS = 50.0
COMMITS = [
    ForgedCommit(f"{number:040x}", message="Serve the new page\n\n" + "It says why. " * 20) for number in range(20)
]


def serve(root: Path, pipe: Connection) -> None:
    """Serve until the pipe ends; send the port first, and the peak memory in MiB at the end."""
    listener = SharedListener(parse_listen_address("127.0.0.1:0"), setting="[webhook] listen")
    with ReceiverWorld(root) as world, WebServer(world.app, listener):
        pipe.send(listener.address.port)
        pipe.recv()
        status = Path("/proc/self/status").read_text(encoding="ascii")
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        pipe.send((len(world.refs()), int(peak.split()[1]) / 1024, time.process_time()))


def pushes(count: int, start: int) -> list[ForgedRequest]:
    return [
        forged(
            "github",
            secret=SECRETS["github"],
            delivery=f"delivery-{number}",
            changes=[ForgedChange(f"refs/heads/b{number}", "1f" * 20, "2e" * 20)],
            commits=COMMITS,
        )
        for number in range(start, start + count)
    ]


def send(port: int, requests: list[ForgedRequest], times: list[float]) -> None:
    """Send requests one after the other on one connection; add the milliseconds of each."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for request in requests:
        begun = time.perf_counter()
        connection.request("POST", "/hook/github", request.body, request.headers)
        answer = connection.getresponse()
        answer.read()
        times.append((time.perf_counter() - begun) * 1000)
        if answer.status != 202:
            raise SystemExit(f"answered with {answer.status}")
    connection.close()


def measure(port: int, count: int, clients: int, start: int) -> list[float]:
    """Return the milliseconds of all requests of so many clients at once."""
    times: list[float] = []
    parts = [pushes(count // clients, start + number * count) for number in range(clients)]
    threads = [threading.Thread(target=send, args=(port, part, times)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def durable(directory: Path, count: int) -> list[float]:
    """Return the milliseconds of the least that makes a file durable."""
    times = []
    for number in range(count):
        begun = time.perf_counter()
        fd = os.open(directory / "tmp", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(fd, b"x" * 8000)
        os.fsync(fd)
        os.close(fd)
        (directory / "tmp").rename(directory / f"{number}")
        fd = os.open(directory, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        times.append((time.perf_counter() - begun) * 1000)
    return times


def line(what: str, times: list[float]) -> float:
    """Print the median and the slow end; return p99."""
    cut = statistics.quantiles(times, n=100)
    print(f"{what:<44} p50 {cut[49]:6.1f} ms  p99 {cut[98]:6.1f} ms  most {max(times):6.1f} ms  ({len(times)})")
    return cut[98]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--where", type=Path, default=None)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(dir=options.where))
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(place, theirs))
    try:
        server.start()
        port = ours.recv()
        measure(port, 50, 1, 10**9)
        alone = line("one client", measure(port, options.requests, 1, 0))
        line(f"{options.clients} clients at once", measure(port, options.requests, options.clients, 10**7))
        plain = place / "plain"
        plain.mkdir()
        line("one durable file by hand", durable(plain, 200))
        ours.send("end")
        queued, peak, cpu = ours.recv()
        print(f"{queued} pushes in the outbox; peak {peak:.0f} MiB; {cpu * 1000 / queued:.1f} ms of CPU for each")
        if options.check and alone > LIMIT_MS:
            raise SystemExit(f"p99 of one client is {alone:.1f} ms, over {LIMIT_MS:g}")
    finally:
        ours.close()
        server.join(30)
        server.kill()
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
