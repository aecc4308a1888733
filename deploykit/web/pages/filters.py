"""How single values are written on a page. Pure.

Rules:

* Every text came from outside. What a person would not see in it is shown as an escape; Jinja2 does the rest.
* A page without script shows times in UTC. The script adds the viewer's zone and how long ago it was.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, urlencode

from markupsafe import Markup

_REFS: Final = ("refs/heads/", "refs/tags/", "refs/")
#: Kinds of characters that are shown as an escape: controls, those that reorder text, half characters.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_KEPT: Final = frozenset({"\n", "\t", "\u200d"})  # the last joins parts of one emoji


def plain(text: str) -> str:
    r"""Return a text in which nothing is hidden.

    >>> plain("red \x1b[31m, and \u202eback")
    'red \\x1b[31m, and \\u202eback'
    """
    if text.isprintable():
        return text
    return "".join(c if c in _KEPT or unicodedata.category(c) not in _UNSEEN else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def finalize(value: object) -> object:
    """Return a value as Jinja2 shall write it: None as nothing, a text with nothing hidden in it, markup as it is."""
    if value is None:
        return ""
    if isinstance(value, str) and not isinstance(value, Markup):
        return plain(value)
    return value


def short_commit(commit: str | None) -> str:
    """Return as much of a commit's id as people compare."""
    return (commit or "")[:10]


def ref_words(ref: str | None) -> str:
    """Return a ref as people write it.

    >>> ref_words("refs/tags/v1.4"), ref_words("refs/heads/feature/x")
    ('v1.4', 'feature/x')
    """
    text = ref or ""
    for start in _REFS:
        if text.startswith(start) and len(text) > len(start):
            return text[len(start) :]
    return text


def first_line(text: str | None) -> str:
    """Return the first line of a commit's message."""
    return (text or "").strip().partition("\n")[0]


def iso(time: datetime) -> str:
    """Return a time for the attribute `datetime`."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc(time: datetime) -> str:
    """Return a time in UTC for people."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration(seconds: float | None) -> str:
    """Return a length of time in at most two units.

    >>> duration(0.34), duration(75), duration(7300), duration(90000)
    ('0.3 s', '1 min 15 s', '2 h 1 min', '1 d 1 h')
    """
    if seconds is None or seconds < 0:
        return ""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, name, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {name} {rest} {small}" if rest else f"{whole // size} {name}"
    return f"{whole} s"


def number(value: int | None) -> str:
    """Return a number with thin spaces between thousands."""
    return "" if value is None else f"{value:,}".replace(",", "\u202f")


def counted(value: int, one: str, many: str = "") -> str:
    """Return a number with its noun.

    >>> counted(1, "node"), counted(3, "node"), counted(2, "repository", "repositories")
    ('1 node', '3 nodes', '2 repositories')
    """
    return f"{number(value)} {one if value == 1 else many or one + 's'}"


def path_of(base: str, parts: Iterable[object], query: dict[str, object]) -> str:
    """Return the address of a page: every part of the path quoted, what is empty in the query left out."""
    path = "/".join(quote(str(part), safe="", errors="replace") for part in parts)
    asked = {key.rstrip("_"): str(value) for key, value in query.items() if value not in ("", None)}
    return f"{base}/{path}" + (f"?{urlencode(asked, errors='replace')}" if asked else "")


def http_only(url: str) -> str:
    """Return an address that a link may lead to; empty for any other scheme, `javascript:` above all."""
    text = url.strip()
    fine = text.lower().startswith(("https://", "http://")) and text.isprintable()
    return text if fine else ""
