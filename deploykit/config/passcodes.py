"""Secrets that stand in a settings file, and how to keep them out: `passcode_file = "PATH"`, `passcode = "env:NAME"`.

A file that holds a passcode itself must be readable by its owner alone (0600), or by the daemon's group too (0640).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploykit.bus.passcode import SECRET_MODE
from deploykit.errors import AddressError
from deploykit.settings.address import parse_address


def mode_problems(data: Mapping[str, Any], mode: int | None) -> list[str]:
    """Return a problem where `[broker]` holds a passcode and others may read the file.

    Args:
        data: the parsed file, references not yet resolved.
        mode: the file's permission bits; None: not known, no problem.
    """
    broker = data.get("broker")
    if mode is None or not mode & ~SECRET_MODE or not isinstance(broker, dict):
        return []
    literal = isinstance(broker.get("passcode"), str) and not broker["passcode"].startswith("env:")
    if literal or _holds_passcode(str(broker.get("address", ""))):
        return [f"broker: the file holds a passcode but has mode {mode:04o} (chmod 0600 it, or use passcode_file)"]
    return []


def resolve_environment(data: Mapping[str, Any], environ: Mapping[str, str]) -> list[str]:
    """Replace `env:NAME` in `[broker]` by the variable's value; return a problem for each variable that is not set."""
    broker = data.get("broker")
    if not isinstance(broker, dict):
        return []
    problems = []
    for key in ("login", "passcode", "address"):
        value = broker.get(key)
        if isinstance(value, str) and value.startswith("env:"):
            name = value.removeprefix("env:")
            if name in environ:
                broker[key] = environ[name]
            else:
                problems.append(f"broker.{key}: environment variable {name} is not set")
                del broker[key]
    return problems


def _holds_passcode(address: str) -> bool:
    try:
        return any(broker.passcode for broker in parse_address(address).brokers)
    except AddressError:
        return "@" in address  # reported as not understood; it may hold anything
