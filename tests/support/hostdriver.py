"""A host of rollouts in a process of its own, to be stopped and killed: `python -m tests.support.hostdriver FILE`.

FILE is JSON: see `HostProcess`. It prints `ready`, and leaves its rollouts when its standard input ends.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import attrs

from deploykit.bus import Bus
from deploykit.fleet.journal import JournalRecord
from deploykit.fleet.journalformat import decode_plan
from deploykit.operations.deploy import load_report_trust, signing_key
from deploykit.operations.rolloutplan import PlannedRollout
from deploykit.settings.web import WebSettings
from deploykit.web.hosting.host import RolloutHost
from deploykit.web.ledger.journal import LedgerJournal
from deploykit.web.ledger.ledger import Ledger
from tests.support.standins import desk_settings


def kill_at(when: str, number: int) -> None:
    """Kill this process before or after a write of a journal, counted from 1; 0: never."""
    append, count = LedgerJournal.append, 0

    def dying(self: LedgerJournal, records: Iterable[JournalRecord], *, durable: bool = True) -> None:
        nonlocal count
        count += 1
        if (when, number) == ("before", count):
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, records, durable=durable)
        if (when, number) == ("after", count):
            os.kill(os.getpid(), signal.SIGKILL)

    LedgerJournal.append = dying  # type: ignore[method-assign]


def main(file: str) -> None:
    """Host rollouts until the standard input ends."""
    given = json.loads(Path(file).read_text())
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    kill_at(given["when"], given["number"])
    settings = attrs.evolve(
        desk_settings(Path(given["root"]), given["address"]),
        web=WebSettings(database=given["database"], lease=given["lease"]),
    )
    ledger = Ledger.open(settings.web, settings.state)
    with Bus(settings.broker, client_id=given["name"]) as bus:
        host = RolloutHost(settings, bus, ledger, locks=Path(given["locks"]))
        assert bus.wait_connected(60)
        host.serve()
        if given["plan"] is not None:
            planned = PlannedRollout(
                settings=settings,
                plan=decode_plan(given["plan"]),
                key=signing_key(settings, None),
                trust=load_report_trust(settings),
            )
            host.start(planned, "ada")
        print("ready", flush=True)
        sys.stdin.read()
        host.close()
    ledger.close()


if __name__ == "__main__":
    main(sys.argv[1])
