"""The state file of checkouts: which ref each directory is of. Losing it costs a look at every directory."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

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


def read_state(home: Path, fingerprint: str) -> dict[str, CheckedOutRef]:
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
        return {
            str(d): CheckedOutRef(str(h["ref"]), str(h["object_id"]) if same else "")
            for d, h in data["directories"].items()
        }
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        _log.warning("%s/%s is damaged: looking at every directory", home, _NAME)
        return {}


def write_state(home: Path, fingerprint: str, state: Mapping[str, CheckedOutRef], *, durable: bool) -> None:
    """Replace the state file."""
    directories = {d: attrs.asdict(h) for d, h in sorted(state.items())}
    data = {"format": _FORMAT, "fingerprint": fingerprint, "directories": directories}
    replace_file(home / _NAME, json.dumps(data).encode() + b"\n", durable=durable)
