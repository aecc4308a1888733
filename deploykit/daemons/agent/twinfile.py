"""The other agents of a node's name, in a file of the state directory: `deploykit status` reads it without a broker."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from deploykit.daemons.agent.twins import Twin
from deploykit.messages import AgentInstance, one_line
from deploykit.system.durable import replace_file

_log = logging.getLogger(__name__)

_NAME: Final = "twins.json"
_FORMAT: Final = 1
#: A running agent rewrites the file more often: an older one was left by an agent that was killed.
_STALE: Final = timedelta(minutes=5)


def write_twins(state: Path, twins: Sequence[Twin]) -> None:
    """Write the file, or remove it where there are no twins."""
    if not twins:
        remove_twins(state)
        return
    entries = [{"instance": t.agent.instance, "host": t.agent.host, "seen": t.seen.isoformat()} for t in twins]
    try:
        replace_file(state / _NAME, json.dumps({"format": _FORMAT, "twins": entries}).encode() + b"\n", durable=False)
    except OSError as error:
        _log.debug("cannot write the list of other agents of this name: %s", error)


def remove_twins(state: Path) -> None:
    """Remove the file."""
    try:
        (state / _NAME).unlink(missing_ok=True)
    except OSError as error:
        _log.debug("cannot remove the list of other agents of this name: %s", error)


def read_twins(state: Path, now: datetime) -> tuple[Twin, ...]:
    """Return the twins that the agent of this state directory knows; none where the file cannot be read."""
    try:
        data = json.loads((state / _NAME).read_bytes())
        if data["format"] != _FORMAT:
            return ()
        found = tuple(
            Twin(
                agent=AgentInstance(instance=one_line(str(e["instance"]), 64), host=one_line(str(e["host"]), 200)),
                seen=datetime.fromisoformat(e["seen"]),
            )
            for e in data["twins"]
        )
        return tuple(twin for twin in found if now - twin.seen < _STALE)
    except (OSError, ValueError, KeyError, TypeError):
        return ()
