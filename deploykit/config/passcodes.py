"""Secrets that stand in a settings file, and how to keep them out: `passcode_file = "PATH"`, `passcode = "env:NAME"`.

A file that holds a passcode itself must be readable by its owner alone (0600), or by the daemon's group too (0640).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deploykit.bus.passcode import SECRET_MODE
from deploykit.errors import AddressError
from deploykit.settings.address import parse_address


def mode_problems(data: Mapping[str, Any], mode: int | None) -> list[str]:
    """Return a problem for each table that holds a passcode where others may read the file.

    Args:
        data: the parsed file, references not yet resolved.
        mode: the file's permission bits; None: not known, no problem.
    """
    if mode is None or not mode & ~SECRET_MODE:
        return []
    return [
        f"{path}: the file holds a passcode but has mode {mode:04o} (chmod 0600 it, or use passcode_file)"
        for path, table in _tables(data)
        if (isinstance(table.get("passcode"), str) and not table["passcode"].startswith("env:"))
        or _holds_passcode(str(table.get("address", "")))
    ]


def resolve_environment(data: Mapping[str, Any], environ: Mapping[str, str]) -> list[str]:
    """Replace `env:NAME` in tables of logins by the variable's value; return a problem for each that is not set."""
    problems = []
    for path, table in _tables(data):
        for key in ("login", "passcode", *(["address"] if path == "broker" else [])):
            value = table.get(key)
            if isinstance(value, str) and value.startswith("env:"):
                name = value.removeprefix("env:")
                if name in environ:
                    table[key] = environ[name]
                else:
                    problems.append(f"{path}.{key}: environment variable {name} is not set")
                    del table[key]
    return problems


def _tables(data: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the tables that may hold a login, with their paths."""
    if isinstance(broker := data.get("broker"), dict):
        yield "broker", broker
    keepalive = data.get("keepalive")
    destinations = keepalive.get("destinations") if isinstance(keepalive, dict) else None
    for name, table in destinations.items() if isinstance(destinations, dict) else ():
        if isinstance(table, dict):
            yield f"keepalive.destinations.{name}", table


def _holds_passcode(address: str) -> bool:
    try:
        return any(broker.passcode for broker in parse_address(address).brokers)
    except AddressError:
        return "@" in address  # reported as not understood; it may hold anything
