"""What every message carries, and the one-line text a person reads.

Rules: messages are frozen values; names in them are parsed; `summary` is one line without control characters.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import ClassVar

import attrs

_EMPTY: Mapping[str, object] = MappingProxyType({})


def new_id() -> str:
    """Make a fresh message id (a random UUID)."""
    return str(uuid.uuid4())


def utc_now() -> datetime:
    """Tell the time, aware, in UTC."""
    return datetime.now(UTC)


def one_line(text: str, limit: int = 300) -> str:
    """Make any text safe for a log, a terminal or a chat: one line, no control characters, bounded."""
    shown = "".join(c if c.isprintable() else " " for c in text[: limit + 1])
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


@attrs.frozen(kw_only=True, slots=True)
class Message:
    """The envelope: CloudEvents' `id`, `source`, `time`, and the thread from push to deploy.

    Args:
        id: unique per message of a source; a redelivery keeps it.
        source: who says it: a node name or a hook, e.g. `git/host`.
        time: when, aware UTC.
        correlation_id: the same from a push to its builds and deploys; the push's own id at the start.
        extra: fields this version does not know, kept for the next reader.
    """

    TYPE: ClassVar[str] = ""

    id: str = attrs.field(factory=new_id)
    source: str = "deploykit"
    time: datetime = attrs.field(factory=utc_now)
    correlation_id: str = ""
    extra: Mapping[str, object] = attrs.field(default=_EMPTY, eq=dict, hash=False)

    @property
    def summary(self) -> str:
        """One human line."""
        raise NotImplementedError(type(self).__name__)
