"""The state file of checkouts: which ref each directory is of, and which directories on the way to them were made here.

Losing it costs a look at every directory; those on the way are then taken for somebody else's, and stay.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Final

import attrs

from deploykit.checkouts.rules import objection
from deploykit.errors import UsageError
from deploykit.system.durable import replace_file

_log = logging.getLogger(__name__)

_FORMAT: Final = 1
_NAME: Final = "state.json"


@attrs.define(slots=True)
class CheckedOutRef:
    """The ref and the object that a directory was made from; empty where that is not known."""

    ref: str = ""
    object_id: str = ""


@attrs.define(kw_only=True, slots=True)
class CheckoutState:
    """What is known of directories, by their paths below the root; `parents` are those that directories are in.

    `fingerprint` is of the settings by which they are made.
    """

    fingerprint: str = ""
    directories: dict[str, CheckedOutRef] = attrs.field(factory=dict)
    parents: set[str] = attrs.field(factory=set)


def read_state(home: Path, fingerprint: str) -> CheckoutState:
    """Return what each directory was made from; empty where there is no state, or it is damaged.

    Args:
        home: the directory that holds the file.
        fingerprint: of the present settings; by other ones each directory is looked at again.

    Raises:
        UsageError: the file is of another format version.
    """
    try:
        data = json.loads((home / _NAME).read_bytes())
        if data["format"] != _FORMAT:
            raise UsageError(f"{home} is of format {data['format']!r}", "use the version that wrote it")
        same = data.get("fingerprint") == fingerprint
        return CheckoutState(
            fingerprint=fingerprint,
            directories={
                str(d): CheckedOutRef(str(h["ref"]), str(h["object_id"]) if same else "")
                for d, h in data["directories"].items()
                if not objection(str(d), nested=True)
            },
            parents={str(d) for d in data.get("parents", ()) if not objection(str(d), nested=True)},
        )
    except FileNotFoundError:
        return CheckoutState(fingerprint=fingerprint)
    except (ValueError, KeyError, TypeError, AttributeError):
        _log.warning("%s/%s is damaged: looking at every directory", home, _NAME)
        return CheckoutState(fingerprint=fingerprint)


def write_state(home: Path, state: CheckoutState, *, durable: bool) -> None:
    """Replace the state file."""
    directories = {d: attrs.asdict(h) for d, h in sorted(state.directories.items())}
    data: dict[str, object] = {"format": _FORMAT, "fingerprint": state.fingerprint, "directories": directories}
    if state.parents:
        data["parents"] = sorted(state.parents)
    replace_file(home / _NAME, json.dumps(data).encode() + b"\n", durable=durable)
