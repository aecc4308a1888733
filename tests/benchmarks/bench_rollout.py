"""A rollout of many nodes by `deploykit deploy` as a process, on a real RabbitMQ that this script starts and ends.

`python tests/benchmarks/bench_rollout.py [--nodes N] [--rounds N] [--slowest S] [--timeout S] [--check]`

Nodes are found by a selector, all prepared first, then activated: a canary, and batches of 10 %. They are simulated in
a process of their own, with a connection, a key and real signatures each. Half of them answer twice, 5 % are silent,
2 % fail, and each script takes a random part of `--slowest`.

The overhead is what is left of a round's time without the ideal: for each round of commands its slowest script, and the
time limit where silent nodes are waited for. Starting the interpreter and connecting count as overhead. With `--check`
the exit code is 1 where the median overhead is above 5 s, or the memory above 100 MB.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import attrs

from tests.brokers.rabbitmq import RabbitMQ
from tests.support.simfleet.desk import Desk
from tests.support.simfleet.model import draw_faults
from tests.support.simfleet.process import Fleet

#: Seconds of overhead, and MiB of the coordinator.
LIMITS = (5.0, 100.0)


@attrs.frozen(kw_only=True, slots=True)
class Round:
    """What one rollout cost.

    Args:
        seconds: of the whole process.
        rollout: seconds from the journal's beginning to its end.
        ideal: seconds that no coordinator could do without.
        cpu, memory: of the process; seconds, MiB.
    """

    seconds: float
    rollout: float
    ideal: float
    cpu: float
    memory: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--slowest", type=float, default=0.3, help="seconds that a script takes at most")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for a node and phase")
    parser.add_argument("--silent", type=float, default=0.05, help="the part of the nodes that never answers a command")
    parser.add_argument("--check", action="store_true", help="fail above a limit")
    options = parser.parse_args()
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; "
        f"{options.nodes} nodes, {options.rounds} rounds"
    )
    faults = draw_faults(options.nodes, silent=options.silent, failing=0.02, slowest=options.slowest, seed=1)
    with tempfile.TemporaryDirectory() as root, RabbitMQ() as broker:
        desk = Desk(Path(root), broker)
        began = time.perf_counter()
        with desk.fleet(faults) as fleet:
            print(f"all subscribed after {time.perf_counter() - began:.1f} s")
            rounds = [measure(desk, fleet, number, options.timeout) for number in range(1, options.rounds + 1)]
    overheads = [each.seconds - each.ideal for each in rounds]
    memory = max(each.memory for each in rounds)
    alone = [each.rollout - each.ideal for each in rounds]
    print(f"overhead {_spread(overheads)}; of the rollout alone {_spread(alone)}")
    print(f"elapsed {_spread([each.seconds for each in rounds])}, ideal {_spread([each.ideal for each in rounds])}")
    print(f"coordinator: CPU {_spread([each.cpu for each in rounds])}, peak memory {memory:.0f} MiB")
    print(f"load {os.getloadavg()[0]:.1f} at the end; limits {LIMITS[0]:g} s and {LIMITS[1]:g} MiB")
    held = statistics.median(overheads) <= LIMITS[0] and memory <= LIMITS[1]
    return 0 if held or not options.check else 1


def measure(desk: Desk, fleet: Fleet, number: int, timeout: float) -> Round:
    """Roll one commit out, look at the books, and return what it cost."""
    known = {node: len(book["acted"]) for node, book in fleet.books().items()}
    commit = f"{number:040x}"[::-1]
    done = desk.run(
        *("deploy", "shop", "--ref", f"refs/tags/r{number}", "--commit", commit),
        *("--nodes", "nodes.txt", "-S", "env=live", "--timeout", f"{timeout:g}"),
        *("--batch", "10%", "--quorum", "90%", "--max-failures", "3%"),
        timeout=600,
    )
    books = fleet.books()
    well = {node for node, book in books.items() if not book["silent"] and not book["failing"]}
    got = {node for node, book in books.items() if book["live"] == commit}
    assert got == well, f"{len(well - got)} nodes have not got it: is --timeout too short?\n{done.stderr}"
    acts = [act for node, book in books.items() for act in book["acted"][known[node] :]]
    stored = desk.rollout()
    assert stored.end is not None
    return Round(
        seconds=done.seconds,
        rollout=stored.end.at - stored.contents.head.begun,
        ideal=ideal_of(acts, timeout if any(book["silent"] for book in books.values()) else 0.0),
        cpu=done.cpu,
        memory=done.memory,
    )


def ideal_of(acts: list[dict[str, Any]], waited: float) -> float:
    """Return the seconds of the slowest scripts, one after the other.

    All commands of the preparation are one round, each activation is one: a batch has one command.

    Args:
        acts: what nodes did.
        waited: how long silent nodes are waited for, in the preparation: later they are left out.
    """
    slowest: dict[str, float] = {"prepare": waited}
    for act in acts:
        name = "prepare" if act["phase"] == "prepare" else act["request"]
        slowest[name] = max(slowest.get(name, 0.0), act["seconds"])
    return sum(slowest.values())


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    sys.exit(main())
