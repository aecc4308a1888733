"""What a rollout's journal costs in the console's ledger, beside the file that the command line writes.

`python tests/benchmarks/bench_ledger.py [--nodes N] [--rounds N] [--check]`

A round is what a rollout of so many nodes writes: the commands of each batch, durably, and an event for each answer. In
each turn of the loop ten answers come, and requests are looked for. The ledger is an SQLite file on the same disk,
then a real PostgreSQL that this script starts, with `fsync` on. With `--check` the exit code is 1 where a ledger's
median is above 20 times the file's, or above 10 ms for a node.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs

from deploykit.errors import LedgerError
from deploykit.fleet.commands import CommandMaker
from deploykit.fleet.journal import CommandRecord, EventRecord, JournalHead, RolloutJournal
from deploykit.fleet.journalport import JournalPort
from deploykit.fleet.rolloutevents import NodeAnswered
from deploykit.settings.web import WebSettings
from deploykit.trust.signature import SigningKey
from deploykit.web.ledger.ledger import Ledger
from tests.support.postgres import running_postgres
from tests.support.rolling import NEW, OLD, plan_of

#: Times the file's median, and milliseconds for a node.
LIMITS = (20.0, 10.0)
_BATCH, _TURN = 20, 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, {given.nodes} nodes")
    found = {}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        root = Path(name)
        found["file"] = [in_a_file(root, given.nodes, at) for at in range(given.rounds)]
        found["SQLite"] = in_a_ledger(WebSettings(), root, given.nodes, given.rounds)
    with running_postgres(fsync=True) as url, tempfile.TemporaryDirectory() as name:
        found["PostgreSQL"] = in_a_ledger(WebSettings(database=url), Path(name), given.nodes, given.rounds)
    file, worst = statistics.median(found["file"]), 0
    for kind, seconds in found.items():
        median = statistics.median(seconds)
        times, each = median / file, median / given.nodes * 1000
        print(f"{kind:11} median {median * 1000:8.1f} ms, {each:6.3f} ms a node, {times:6.1f} x the file")
        worst |= kind != "file" and (times > LIMITS[0] or each > LIMITS[1])
    return int(given.check and worst)


def in_a_file(root: Path, nodes: int, at: int) -> float:
    """Return the seconds of one round."""
    head = head_of(nodes, f"r{at}")
    with RolloutJournal.create(root, head) as journal:
        return written(journal, head)


def in_a_ledger(settings: WebSettings, state: Path, nodes: int, rounds: int) -> list[float]:
    """Return the seconds of each round."""
    ledger, seconds = Ledger.open(settings, state), []

    def never(error: LedgerError, failures: int) -> None:
        raise error

    for at in range(rounds):
        head = head_of(nodes, f"r{at}")
        lease = ledger.rollouts.start(head, "bench", "bench", 600)
        seconds.append(written(ledger.journal(lease, never), head))
        ledger.rollouts.abandon(lease)
    ledger.close()
    return seconds


def head_of(nodes: int, rollout: str) -> JournalHead:
    """Return what the journal begins with."""
    return JournalHead(plan=attrs.evolve(plan_of(nodes), rollout=rollout), begun=time.time())


def written(journal: JournalPort, head: JournalHead) -> float:
    """Write a rollout's worth, and return how long it took; making the records does not count."""
    plan, now = head.plan, datetime.now(UTC)
    maker = CommandMaker(
        rollout=plan.rollout,
        site=plan.site,
        requested_by="bench",
        correlation_id=plan.rollout,
        key=SigningKey.generate(),
        expires_in=timedelta(minutes=5),
    )
    batches = [plan.nodes[begin : begin + _BATCH] for begin in range(0, len(plan.nodes), _BATCH)]
    commands = [list(maker.deploys("deploy", NEW, batch, now)) for batch in batches]
    events = [
        EventRecord(
            at=head.begun, event=NodeAnswered(node=node, phase="deploy", outcome="success", live=NEW, previous=OLD)
        )
        for node in plan.nodes
    ]
    begun = time.perf_counter()
    for batch, signed in enumerate(commands):
        journal.append([events[batch * _BATCH], *(CommandRecord(command=command) for command in signed)])
        for at, event in enumerate(events[batch * _BATCH : (batch + 1) * _BATCH]):
            journal.append([event], durable=False)
            if at % _TURN == _TURN - 1:
                journal.requests()
    return time.perf_counter() - begun


if __name__ == "__main__":
    sys.exit(main())
