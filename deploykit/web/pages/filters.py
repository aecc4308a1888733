"""How single values are written on a page. Pure.

Rules:

* Every text came from outside. What a person would not see in it is shown as an escape; Jinja2 does the rest.
* A page without script shows times in UTC. The script adds the viewer's zone and how long ago it was.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, urlencode

from markupsafe import Markup

from deploykit.release.model import OUTPUT_SHOWN

_REFS: Final = ("refs/heads/", "refs/tags/", "refs/")
#: Kinds of characters that are shown as an escape: controls, those that reorder text, half characters.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_KEPT: Final = frozenset({"\n", "\t", "\u200d"})  # the last joins parts of one emoji


_FINGERPRINT: Final = re.compile(r"(SHA256:[A-Za-z0-9+/]{8})[A-Za-z0-9+/]{35}")
#: What follows a principal: its key, and the certificate that names it.
_KEY_OF: Final = re.compile(r" \(SHA256:[A-Za-z0-9+/]{43}(?:, certificate [^()]*)?\)")


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


def who_words(who: str | None) -> str:
    """Return who did something without the fingerprints of keys; they belong into a title.

    >>> who_words("root, signed ops@demo (SHA256:PXCrhxFfN0tZ1nG1pF5b1dPVJm2dO4Zf2mWJwqzgq8c)")
    'root, signed ops@demo'
    >>> who_words("SHA256:PXCrhxFfN0tZ1nG1pF5b1dPVJm2dO4Zf2mWJwqzgq8c")
    'SHA256:PXCrhxFf…'
    """
    return _FINGERPRINT.sub(r"\1…", _KEY_OF.sub("", who or ""))


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
    r"""Return a length of time in at most two units; a number and its unit stay in one line.

    >>> [duration(seconds).replace("\u00a0", " ") for seconds in (0, 0.04, 0.34, 75, 7300, 90000)]
    ['< 1 s', '< 0.1 s', '0.3 s', '1 min 15 s', '2 h 1 min', '1 d 1 h']
    """
    if seconds is None or seconds < 0:
        return ""
    if seconds < 0.05:
        return "<\u00a00.1\u00a0s" if seconds else "<\u00a01\u00a0s"  # 0: of times in whole seconds
    if seconds < 10:
        return f"{seconds:.1f}\u00a0s"
    whole = round(seconds)
    for size, name, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size}\u00a0{name} {rest}\u00a0{small}" if rest else f"{whole // size}\u00a0{name}"
    return f"{whole}\u00a0s"


def number(value: int | None) -> str:
    """Return a number with thin spaces between thousands."""
    return "" if value is None else f"{value:,}".replace(",", "\u202f")


def counted(value: int, one: str, many: str = "") -> str:
    """Return a number with its noun.

    >>> counted(1, "node"), counted(3, "node"), counted(2, "repository", "repositories")
    ('1 node', '3 nodes', '2 repositories')
    """
    return f"{number(value)} {one if value == 1 else many or one + 's'}"


def reason(text: str) -> str:
    """Return why something failed, without the command that shows its output: the page shows it.

    >>> reason("post-deploy ended with exit code 1 (its output is in `deploykit release show`); back to 3-v1")
    'post-deploy ended with exit code 1; back to 3-v1'
    """
    return text.replace(f" ({OUTPUT_SHOWN})", "")


def sentence(text: str, end: str = "") -> str:
    """Return a text of an error as a sentence.

    >>> sentence("no nodes are chosen", ".")
    'No nodes are chosen.'
    """
    return text[:1].upper() + text[1:] + (end if text and text[-1] not in ".!?" else "")


def listed(names: Sequence[str], most: int = 8) -> str:
    """Return names in a row; the first of them where there are many.

    >>> listed(["web-1", "web-2", "web-3"]), listed(["a", "b", "c"], most=1)
    ('web-1, web-2 and web-3', 'a and 2 more')
    """
    if len(names) > most:
        return f"{', '.join(names[:most])} and {number(len(names) - most)} more"
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


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
