"""Requests of other processes to a rollout: durable files in its `control/` directory, handled in their order.

Rules:

* A request is on the disk when `ask` returns, whether a coordinator runs or not: the next one carries it out.
* The coordinator notes the name of a request in the journal together with what came of it, then removes the file.
  A name that stands in the journal is not carried out again.
* A file that is no request is set aside as `NAME.bad`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import time
from pathlib import Path
from typing import Final, Literal, get_args

import attrs

from deploykit.errors import RolloutError
from deploykit.messages.base import one_line
from deploykit.system.durable import replace_file

_log = logging.getLogger(__name__)

ControlKind = Literal["pause", "resume", "promote", "abort"]
_NAME: Final = re.compile(r"\d{20}-[0-9a-f]{8}\.json\Z").match
_MOST: Final = 4096
#: A pipe in the place of a request must not hold up the coordinator.
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@attrs.frozen(kw_only=True, slots=True)
class ControlRequest:
    """What somebody asks of a rollout.

    Args:
        kind: what is asked.
        by: who asks.
        rollback: of an abort: nodes that have the new release go back to their old one.
        name: of its file; orders requests, and tells a request from its repetition.
    """

    kind: ControlKind
    by: str
    rollback: bool = False
    name: str = ""


def ask(rollout: Path, request: ControlRequest) -> ControlRequest:
    """Leave a request for whoever coordinates a rollout now, or will; return it with its name.

    Args:
        rollout: the rollout's directory.
        request: without a name.

    Raises:
        RolloutError: it cannot be written.
    """
    directory = rollout / "control"
    named = attrs.evolve(request, name=f"{time.time_ns():020d}-{secrets.token_hex(4)}.json")
    content = {"version": 1, "kind": named.kind, "by": named.by, "rollback": named.rollback}
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        replace_file(directory / named.name, json.dumps(content).encode() + b"\n", mode=0o600)
    except OSError as error:
        raise RolloutError(
            f"{directory} cannot be written: {error.strerror}", "ask as the user who began it"
        ) from error
    return named


def waiting(rollout: Path) -> tuple[ControlRequest, ...]:
    """Return the requests that wait, oldest first."""
    directory = rollout / "control"
    try:
        names = sorted(entry.name for entry in os.scandir(directory) if _NAME(entry.name))
    except OSError:
        return ()
    found = (_read(directory / name) for name in names)
    return tuple(request for request in found if request is not None)


def remove(rollout: Path, request: ControlRequest) -> None:
    """Remove a request that stands in the journal."""
    (rollout / "control" / request.name).unlink(missing_ok=True)


def _read(path: Path) -> ControlRequest | None:
    try:
        with os.fdopen(os.open(path, _FLAGS), "rb") as file:
            value = json.loads(file.read(_MOST))
        if value["version"] != 1 or value["kind"] not in get_args(ControlKind):
            raise ValueError(value["kind"])
        return ControlRequest(
            kind=value["kind"], by=one_line(str(value["by"])), rollback=value["rollback"] is True, name=path.name
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        _log.warning("%s is no request to a rollout, set aside: %s", path, error)
        try:
            path.rename(path.with_name(path.name + ".bad"))
        except OSError:
            _log.warning("%s cannot be set aside", path)
        return None


__all__ = ["ControlKind", "ControlRequest", "ask", "remove", "waiting"]
