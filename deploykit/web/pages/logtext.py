"""Lines that scripts printed, as a page shows them: without what only a terminal understands. Pure.

Rules:

* Colours, cursor movements, titles and links of a terminal are removed whole; no part of them stays as text.
* A line that overwrites itself by carriage returns (a progress bar) shows its last text.
* What is left is a text of printable characters and tabs; anything else is an escape. The page writes it as text.
* A line is bounded: one of megabytes must not hold up a browser.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from deploykit.web.pages.filters import plain

#: Characters of a line that are shown.
MAX_LINE: Final = 4000
#: ECMA-48: CSI; then OSC, DCS, SOS, PM and APC up to BEL or ST; two-character escapes. Each part is possessive: a
#: hostile line must not cost more than its length.
_CONTROL: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*+[ -/]*+[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*+(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*+[0-~]?"
)


def shown_line(line: str) -> str:
    r"""Return a line as it is shown.

    >>> shown_line("\x1b[1;31mfailed\x1b[0m: 10 %\r100 %")
    '100 %'
    >>> shown_line("\x1b]0;title\x07built <b>\x00")
    'built <b>\\x00'
    """
    text = line[: 4 * MAX_LINE]
    if not text.isprintable():
        text = _CONTROL.sub("", text).rstrip("\r\n")
        text = plain(text.rpartition("\r")[2].replace("\n", " "))
    return text if len(text) <= MAX_LINE else text[:MAX_LINE] + "…"


def shown_lines(lines: Iterable[str]) -> str:
    """Return lines as one text, each ended by a newline."""
    return "".join(shown_line(line) + "\n" for line in lines)


__all__ = ["MAX_LINE", "shown_line", "shown_lines"]
