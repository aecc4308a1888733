"""What a node knows of the locks of its sites, in one file of its state directory: durable, small.

A lock in a damaged file would be none, without a word. So the file holds a digest of itself.

It also holds when the node was last connected, and for which sites it has asked what it missed: an agent that was away
for long, or that is new, asks the others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import LockStoreError
from deploykit.messages.statement import SignedStatement
from deploykit.names import SiteName, parse_site_name
from deploykit.system.durable import replace_file

_FORMAT: Final = 1
#: The largest file that is read: each site keeps a few statements.
_LARGEST: Final = 64 << 20


@attrs.frozen(kw_only=True, slots=True)
class KnownLocks:
    """What is stored.

    Args:
        statements: on which site, its bytes, and when it was first heard.
        sites: those of the node that it has asked about.
        connected: when the node was last connected; None for never.
    """

    statements: tuple[tuple[SiteName, SignedStatement, datetime], ...] = ()
    sites: frozenset[str] = frozenset()
    connected: datetime | None = None


class LockStore:
    """The file. Not for several threads.

    Args:
        path: made when first written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> KnownLocks:
        """Return what is stored; where there is no file, nothing.

        Raises:
            LockStoreError: the file cannot be read, is damaged, or of another version.
        """
        try:
            with self.path.open("rb") as file:
                data = json.loads(file.read(_LARGEST))
            digest = data.pop("sha256", "")
            if data["format"] != _FORMAT:
                raise LockStoreError(
                    f"{self.path} has format {data['format']!r}, known is {_FORMAT}",
                    "use the deploykit version that wrote it",
                )
            if _digest(data) != digest:
                raise ValueError("its digest is another")
            statements = tuple(
                (
                    parse_site_name(row["site"]),
                    SignedStatement(body=_text(row["body"]), signature=_text(row["signature"])),
                    _time(row["heard"]),
                )
                for row in data["statements"]
            )
            connected = _time(data["connected"]) if data["connected"] is not None else None
            return KnownLocks(statements=statements, sites=frozenset(map(_text, data["sites"])), connected=connected)
        except FileNotFoundError:
            return KnownLocks()
        except OSError as error:
            raise LockStoreError(
                f"cannot read {self.path}: {error.strerror}", "correct its owner or mode: sites may be locked"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise LockStoreError(
                f"{self.path} is damaged: {error}",
                "move it away: the node then asks the others which of its sites are locked",
            ) from error

    def save(self, known: KnownLocks) -> None:
        """Replace what is stored, durably.

        Raises:
            LockStoreError: it cannot be written.
        """
        data = {
            "format": _FORMAT,
            "connected": known.connected.isoformat() if known.connected is not None else None,
            "sites": sorted(known.sites),
            "statements": [
                {"site": site, "heard": heard.isoformat(), "body": signed.body, "signature": signed.signature}
                for site, signed, heard in known.statements
            ],
        }
        try:
            replace_file(self.path, _raw({"sha256": _digest(data), **data}) + b"\n", mode=0o600)
        except OSError as error:
            raise LockStoreError(
                f"cannot write {self.path}: {error.strerror}", "free the disk, or correct its mode"
            ) from error


def lock_store_of(state: Path) -> LockStore:
    """Return the store of the node whose state directory is given."""
    return LockStore(state / "locks.json")


def _raw(data: Mapping[str, object]) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def _digest(data: Mapping[str, object]) -> str:
    return hashlib.sha256(_raw(data)).hexdigest()


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a value is no text")
    return value


def _time(value: object) -> datetime:
    found = datetime.fromisoformat(_text(value))
    if found.tzinfo is None:
        raise ValueError("a time has no zone")
    return found
