"""What every message carries, and the one-line text a person reads.

Rules: messages are frozen values; names in them are parsed; `summary` is one line without control characters.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, ClassVar, Final

import attrs

from deploykit.names import NodeName
from deploykit.system.oneline import one_line as one_line  # noqa: PLC0414 -- also for who imports it from here

#: No unknown fields: the default of every `extra`.
NOTHING: Final[Mapping[str, object]] = MappingProxyType({})

#: Metadata of a field that never stands on the native wire: a message that holds a value there is not written.
NEVER_WRITTEN: Final[Mapping[str, object]] = MappingProxyType({"wire": False})
#: Metadata of a list that loses its first entries, not its last, where a message must be cut to fit its wire.
KEEPS_LAST: Final[Mapping[str, object]] = MappingProxyType({"keeps": "last"})
#: Metadata of a field that stands on the wire only where it differs from its default: younger than its message.
ABSENT_BY_DEFAULT: Final[Mapping[str, object]] = MappingProxyType({"absent": True})
#: Metadata of a field that must stand on the wire, unless `parts` does: then it must not. Readers that do not know
#: `parts` refuse the second form whole.
UNLESS_PARTS: Final[Mapping[str, object]] = MappingProxyType({"unless": "parts"})

# Narrower than their types say to a type checker; `wire` holds values to it when they are written and read.
Identifier = Annotated[str, "identifier"]  #: 1 to 255 printable characters.
Reference = Annotated[str, "reference"]  #: a URI reference of 1 to 255 characters: a path, `git/host`, or a URL.
Count = Annotated[int, "count"]  #: zero or more, exact in every JSON reader (at most 2**53 - 1).
UserName = Annotated[str, "user"]  #: 1 to 64 of `A-Za-z0-9._@+-`, the first no dash: safe in every password file.
PasswordHash = Annotated[str, "password-hash"]  #: crypt(3): bcrypt, SHA-256, SHA-512 or yescrypt.
Base64 = Annotated[str, "base64"]  #: RFC 4648, padded, one line: 1 to 65,536 bytes.
Seconds = Annotated[float, "seconds"]  #: finite, zero or more.
ManyNodes = Annotated[tuple[NodeName, ...], 10_000]  #: a list of nodes that may be longer than others.


def new_id() -> str:
    """Return a new message id (a random UUID)."""
    return str(uuid.uuid4())


def utc_now() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.now(UTC)


def unknown_fields() -> Mapping[str, object]:
    """Define an attribute for unknown fields. It is not in `repr`: any of them may be a secret."""
    made: Mapping[str, object] = attrs.field(default=NOTHING, eq=dict, hash=False, repr=False)
    return made


@attrs.frozen(kw_only=True, slots=True)
class Message:
    """The envelope: CloudEvents' `id`, `source`, `time`, and the correlation id from push to deploy.

    Args:
        id: unique per message of a source; a redelivery keeps it.
        source: who sends it: a node name or a hook, e.g. `git/host`.
        time: when, aware, in UTC.
        correlation_id: the same from a push to its builds and deploys; the push's own id at the start.
        extra: fields of the message that this version does not know, kept for the next reader.
        extensions: CloudEvents attributes that this version does not know, kept likewise.
    """

    #: The wire type. A class that leaves it empty is never written.
    TYPE: ClassVar[str] = ""

    id: Identifier = attrs.field(factory=new_id)
    source: Reference = "deploykit"
    time: datetime = attrs.field(factory=utc_now)
    correlation_id: str = ""
    extra: Mapping[str, object] = unknown_fields()
    extensions: Mapping[str, object] = unknown_fields()

    @property
    def summary(self) -> str:
        """One line for people."""
        raise NotImplementedError(type(self).__name__)
