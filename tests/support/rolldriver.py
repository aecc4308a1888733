"""Start a rollout in a process of its own, to be killed: `python -m tests.support.rolldriver FILE`.

The file holds the directory of the stand-in nodes, the address of the broker, and the plan.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from deploykit.bus import Bus
from deploykit.fleet.journalformat import decode_plan
from deploykit.operations.deploy import load_report_trust, signing_key
from deploykit.operations.rollout import start_rollout
from deploykit.operations.rolloutplan import PlannedRollout
from tests.support.standins import desk_settings


def main(file: str) -> int:
    """Run it to its end; return its exit code."""
    root, address, plan = json.loads(Path(file).read_text())
    settings = desk_settings(Path(root), address)
    planned = PlannedRollout(
        settings=settings, plan=decode_plan(plan), key=signing_key(settings, None), trust=load_report_trust(settings)
    )
    with Bus(settings.broker, client_id="operator") as bus:
        assert bus.wait_connected(60)
        return start_rollout(planned, bus).exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
