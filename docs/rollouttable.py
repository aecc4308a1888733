"""The tables of docs/rollouts.md: `python docs/rollouttable.py` prints them, `--write` puts them there."""

from __future__ import annotations

import enum
import sys
from collections.abc import Mapping
from pathlib import Path

from deploykit.fleet.rolloutstates import NODE, ROLLOUT

PAGE = Path(__file__).with_name("rollouts.md")
BEGIN = "<!-- made by docs/rollouttable.py -->\n"
END = "<!-- end of what docs/rollouttable.py made -->\n"


def markdown_tables() -> str:
    """Return what stands between the marks in docs/rollouts.md."""
    return "\n".join([_overview(), _table("A rollout", ROLLOUT), _table("A node", NODE)])


def _overview() -> str:
    rows = [
        f"| {state} | {', '.join(dict.fromkeys(turns.values())) or 'nothing: the rollout is over'} |\n"
        for state, turns in ROLLOUT.items()
    ]
    return f"| A rollout that is | is next |\n|---|---|\n{''.join(rows)}"


def _table(title: str, table: Mapping[str, Mapping[enum.Enum, str]]) -> str:
    rows = [
        f"| {state} | {turn.value} | {after} |\n" for state, turns in table.items() for turn, after in turns.items()
    ]
    return f"| {title} | what happens | then |\n|---|---|---|\n{''.join(rows)}"


def page_with_tables(page: str) -> str:
    """Return the page with the tables as they are now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{markdown_tables()}{END}{after}"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page_with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(markdown_tables(), end="")
