"""By what a message can be found and linked: its ids, commits and refs, read from the body without decoding all of it.

A log of a gigabyte is read several times to trace one push, and most of it is about others. What is linked is decoded
in full later. Pure, and never raises over what a message holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from deploykit.errors import MessageError
from deploykit.fleet.recordformat import RecordedMessage
from deploykit.messages import MAX_PARTS, RefUpdated
from deploykit.wire import CONTENT_TYPE, decode
from deploykit.wire.strictjson import MAX_BODY

PUSH: Final = "deploykit.source.ref-updated.v1"
MIRROR: Final = "deploykit.mirror.updated.v1"
COMMAND: Final = "deploykit.deploy.requested.v1"
REPORT: Final = "deploykit.deploy.reported.v1"
PROGRESS: Final = "deploykit.deploy.progressed.v1"
ROLLOUT: Final = "deploykit.rollout.reported.v1"
ABORT: Final = "deploykit.rollout.abort.v1"
BUILDS: Final = frozenset({"deploykit.build.requested.v1", "deploykit.build.started.v1", "deploykit.build.finished.v1"})
_OBJECT_ID: Final = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")
#: The messages that a trace is made of.
TRACED: Final = BUILDS | {PUSH, MIRROR, COMMAND, REPORT, PROGRESS, ROLLOUT, ABORT}


@attrs.frozen(kw_only=True, slots=True)
class MessageKeys:
    """What links one message to others; empty where it names nothing of a kind.

    Args:
        type: its wire type.
        id, correlation: its own id, and the correlation id that it carries.
        tip: the object that a push or a fetch moved its ref to, or the commit of a build, a command or a rollout. Of a
            report: the commit that it made, prepared or put live.
        carried: further commits of a push; of a command, a report or a rollout the commits of its parts.
        repo, ref: of a push, a fetch or a build; `ref` of commands and rollouts, too. A full name.
        request: the command that a report or progress answers.
        rollout: what it is part of.
    """

    type: str
    id: str = ""
    correlation: str = ""
    tip: str = ""
    carried: frozenset[str] = frozenset()
    repo: str = ""
    ref: str = ""
    request: str = ""
    rollout: str = ""

    @property
    def ids(self) -> Iterator[str]:
        """Every id by which somebody may ask for it."""
        return (each for each in (self.id, self.correlation, self.request, self.rollout) if each)

    @property
    def objects(self) -> Iterator[str]:
        """Every object id by which somebody may ask for it."""
        if self.tip:
            yield self.tip
        yield from self.carried


def keys_of(record: RecordedMessage) -> MessageKeys | None:
    """Return the keys of a message; None for what no trace is made of, and for what is no message."""
    if record.left_out or len(record.body) > MAX_BODY:
        return None
    if record.headers.get("content-type", "").partition(";")[0].strip().lower() != CONTENT_TYPE:
        return _legacy_keys(record)
    try:
        event = json.loads(record.body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or _text(event, "type") not in TRACED:
        return None
    data = event.get("data")
    if not isinstance(data, dict):
        return None
    return _native_keys(event, data)


def _native_keys(event: Mapping[str, object], data: Mapping[str, object]) -> MessageKeys:
    kind = _text(event, "type")
    carried: frozenset[str] = frozenset()
    tip = _text(data, "new" if kind in (PUSH, MIRROR) else "commit")
    if kind == PUSH:
        commits = data.get("commits")
        listed = commits if isinstance(commits, list) else []
        carried = frozenset(_object(_text(one, "id")) for one in listed[:1000] if isinstance(one, dict)) - {""}
    elif kind == REPORT:
        target = data.get("target")
        made = target if isinstance(target, dict) and _text(target, "commit") else None
        live = data.get("outcome") == "success" and data.get("phase") not in ("prepare", "discard")
        about: Mapping[str, object] = made if made is not None else data if live else {}
        tip, carried = _text(about, "commit"), _parts(about)
    elif kind in (COMMAND, ROLLOUT):
        carried = _parts(data)
    return MessageKeys(
        type=kind,
        id=_text(event, "id"),
        correlation=_text(event, "correlationid"),
        tip=_object(tip),
        carried=carried,
        repo=_text(data, "repo"),
        ref=_text(data, "ref"),
        request=_text(data, "request"),
        rollout=_text(data, "rollout"),
    )


def _parts(holder: Mapping[str, object]) -> frozenset[str]:
    """Return the commits of the parts of a version; none where it is of one repository."""
    parts = holder.get("parts")
    listed = parts[:MAX_PARTS] if isinstance(parts, list) else []
    return frozenset(_object(_text(one, "commit")) for one in listed if isinstance(one, dict)) - {""}


def _legacy_keys(record: RecordedMessage) -> MessageKeys | None:
    """Return the keys of a message in the original's text format: pushes and builds are."""
    try:
        message = decode(record.headers, record.body, record.destination, received=record.received)
    except MessageError:
        return None
    if message is None or message.TYPE not in TRACED:
        return None
    push = isinstance(message, RefUpdated)
    tip = getattr(message, "new" if push or message.TYPE == MIRROR else "commit", None)
    return MessageKeys(
        type=message.TYPE,
        id=message.id,
        correlation=message.correlation_id,
        tip=_object(str(tip or "")),
        carried=frozenset(str(one.id) for one in message.commits) if isinstance(message, RefUpdated) else frozenset(),
        repo=str(getattr(message, "repo", None) or ""),
        ref=str(getattr(message, "ref", None) or ""),
    )


def _text(holder: Mapping[str, object], name: str) -> str:
    value = holder.get(name)
    return value if isinstance(value, str) and len(value) <= 1100 else ""


def _object(text: str) -> str:
    """Return an object id; nothing for what is none, and for the one of zeros, which is no object."""
    return text if _OBJECT_ID.match(text) and text.strip("0") else ""
