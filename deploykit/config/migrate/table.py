"""The tables of docs/migration.md, old key -> new key, from the rows that the conversion itself uses.

`python -m deploykit.config.migrate.table` prints them, `--write docs/migration.md` puts them between the marks there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from deploykit.config.migrate.broker import CONNECTOR_ROWS, RSERVER_ROWS, SERVER_ROWS
from deploykit.config.migrate.kinds import all_kinds
from deploykit.config.migrate.model import Row

BEGIN: Final = "<!-- made by deploykit.config.migrate.table -->\n"
END: Final = "<!-- end of what deploykit.config.migrate.table made -->\n"

_SHARED: Final = (*RSERVER_ROWS, *SERVER_ROWS, *CONNECTOR_ROWS)


def markdown_tables() -> str:
    """Return what stands between the marks: a table for the brokers, which most files name, and one for each kind."""
    parts = [_section("Brokers, in any of the files", "", dict.fromkeys(_SHARED))]
    for kind in all_kinds():
        rows = [row for row in kind.rows if row not in _SHARED]
        brokers = ", and the brokers" if len(rows) < len(kind.rows) else ""
        parts.append(_section(f"{kind.name}: {kind.title}", f"`{kind.file}`{brokers}. `--kind {kind.name}`.", rows))
    return "\n".join(parts)


def page_with_tables(page: str) -> str:
    """Return a page with the tables as they are now.

    Raises:
        ValueError: the page has no marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no marks for the tables")
    return f"{before}{BEGIN}\n{markdown_tables()}\n{END}{after}"


def main(arguments: Sequence[str]) -> int:
    """Print the tables, or write them to a page; return the exit code."""
    match arguments:
        case []:
            sys.stdout.write(markdown_tables())
        case ["--write", name]:
            page = Path(name)
            page.write_text(page_with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
        case _:
            sys.stderr.write("usage: python -m deploykit.config.migrate.table [--write PAGE]\n")
            return 2
    return 0


def _section(title: str, intro: str, rows: Iterable[Row]) -> str:
    lines = [f"### {title}", "", *([intro, ""] if intro else [])]
    rows = [*rows]
    if not rows:
        return "\n".join(lines[:-1]) + "\n"
    lines += ["| old key | new key | |", "|---|---|---|"]
    lines += (
        f"| {_code(row.old)} | {_code(row.new) or 'none'} | {row.note.replace('|', chr(92) + '|')} |" for row in rows
    )
    return "\n".join(lines) + "\n"


def _code(key: str) -> str:
    return f"`{key}`" if key else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
