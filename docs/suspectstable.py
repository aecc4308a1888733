"""The tables of docs/bus.md on who made the broker hang up: `python docs/suspectstable.py` prints them."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from deploykit.bus import suspects
from deploykit.bus.suspects import Evidence


def markdown_tables() -> str:
    """Return the tables of docs/bus.md."""
    parts = [
        _machine("A message", suspects.MESSAGE),
        _machine("A destination", suspects.DESTINATION),
        _machine("A subscription", suspects.SUBSCRIPTION),
        _machine("How messages are sent", suspects.SENDING),
        _machine("The connection", suspects.CONNECTION),
        "| the broker ends a connection that is | it counts against |\n|---|---|\n"
        + "".join(f"| {_name(state)} | {blame.value} |\n" for state, blame in suspects.BLAME.items()),
    ]
    return "\n".join(parts)


def _machine(title: str, table: Mapping[enum.Enum, Mapping[Evidence, enum.Enum]]) -> str:
    rows = [
        f"| {_name(state)} | {seen.value} | {_name(following)} |\n"
        for state, step in table.items()
        for seen, following in step.items()
    ]
    return f"| {title} | what is seen | then |\n|---|---|---|\n{''.join(rows)}"


def _name(state: enum.Enum) -> str:
    return state.value if isinstance(state.value, str) else state.name.lower().replace("_", " ")


if __name__ == "__main__":
    print(markdown_tables(), end="")
