"""What the access daemon last saw and did, in one file: for the agent's answers, and for its own next start.

Rules:

* The access files are the truth. A lost or damaged state file costs who asked, and which grants are too old, no more.
* No hash stands in it. Its owner and its group may read it.
* A format version stands in it. One from a newer deploykit is left alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import attrs

from deploykit.errors import AccessError, InvalidName
from deploykit.messages.node import SiteAccess
from deploykit.names import SiteName, parse_site_name
from deploykit.system.durable import replace_file

_FORMAT: Final = 1
_MODE: Final = 0o640
_MOST_BYTES: Final = 16 << 20
#: Names that a message can carry. Somebody else's line may have others: blanks, any letters.
_NAMEABLE: Final = re.compile(r"[A-Za-z0-9._@+][A-Za-z0-9._@+-]{0,63}\Z", re.ASCII)


class NewerStateFile(AccessError):
    """Another deploykit wrote the state file. Use that one, or remove the file: only who asked is lost with it."""


@attrs.frozen(kw_only=True, slots=True)
class AccessEntry:
    """A user in an access file.

    Args:
        until: when the access ends; None: the line is somebody else's.
        requested_by: who asked for it, as far as that is known.
    """

    user: str
    until: datetime | None = None
    requested_by: str = ""


@attrs.frozen(kw_only=True, slots=True)
class SiteEntries:
    """The users of a site.

    Args:
        users: by name.
        revoked: when each user's access was last asked to end: an older grant does not bring it back.
        problem: why the file could not be read.
    """

    users: Mapping[str, AccessEntry] = attrs.field(factory=dict)
    revoked: Mapping[str, datetime] = attrs.field(factory=dict)
    problem: str = ""


@attrs.frozen(kw_only=True, slots=True)
class AccessState:
    """What is known of each protected site of a node."""

    sites: Mapping[SiteName, SiteEntries] = attrs.field(factory=dict)

    def described(self, site: SiteName) -> tuple[SiteAccess, ...]:
        """Return who may see a site, by name, as the node describes it; without names that no message can carry."""
        entries = self.sites.get(site, SiteEntries())
        return tuple(
            SiteAccess(site=site, user=each.user, until=each.until, requested_by=each.requested_by)
            for user, each in sorted(entries.users.items())
            if _NAMEABLE.match(user)
        )


def state_path(state: Path) -> Path:
    """Return where the file is, in a node's state directory."""
    return state / "access" / "access.json"


def encode_state(state: AccessState) -> bytes:
    """Return the file's content."""
    sites = {
        str(site): {
            "users": {
                user: {"until": _text(each.until), "requested_by": each.requested_by}
                for user, each in entries.users.items()
            },
            "revoked": {user: _text(when) for user, when in entries.revoked.items()},
            "problem": entries.problem,
        }
        for site, entries in state.sites.items()
    }
    return json.dumps({"format": _FORMAT, "sites": sites}, indent=1).encode()


def decode_state(content: bytes) -> AccessState:
    """Return what a file's content says.

    Raises:
        AccessError: it is damaged, or a newer deploykit wrote it.
    """
    try:
        found = json.loads(content)
        version = found["format"]
        if version != _FORMAT:
            raise NewerStateFile(
                f"it has format {version!r:.40}, not {_FORMAT}", "use the deploykit that wrote it, or remove the file"
            )
        return AccessState(sites={parse_site_name(name): _entries(each) for name, each in found["sites"].items()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidName) as error:
        raise AccessError("it is damaged", "the access daemon writes it anew") from error


def read_state(state: Path) -> AccessState | None:
    """Return what the daemon wrote in a state directory; None where it never ran.

    Raises:
        AccessError: the file cannot be read or used; the text names it.
    """
    path = state_path(state)
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AccessError(f"cannot read {path}: {error.strerror}", "let its group read it") from error
    try:
        return decode_state(content)
    except AccessError as error:
        raise type(error)(f"cannot use {path}: {error.problem}", error.remedy) from error


def write_state(state: Path, content: AccessState) -> None:
    """Write the file, durably.

    Raises:
        OSError: there is no room, or no right to; the old file stays.
    """
    replace_file(state_path(state), encode_state(content), mode=_MODE)


def _entries(found: Mapping[str, Any]) -> SiteEntries:
    return SiteEntries(
        users={
            str(user): AccessEntry(
                user=str(user), until=_time(each["until"]), requested_by=str(each.get("requested_by", ""))
            )
            for user, each in found["users"].items()
        },
        revoked={str(user): when for user, text in found["revoked"].items() if (when := _time(text)) is not None},
        problem=str(found.get("problem", "")),
    )


def _text(when: datetime | None) -> str | None:
    return None if when is None else when.isoformat()


def _time(text: object) -> datetime | None:
    if text is None:
        return None
    when = datetime.fromisoformat(str(text))
    if when.tzinfo is None:
        raise ValueError("a time without a zone")
    return when


__all__ = [
    "AccessEntry",
    "AccessState",
    "NewerStateFile",
    "SiteEntries",
    "decode_state",
    "encode_state",
    "read_state",
    "state_path",
    "write_state",
]
