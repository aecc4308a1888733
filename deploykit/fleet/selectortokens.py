"""A selector's text as tokens.

* Blanks only separate. Other characters that are not printed are refused: nobody sees what they select.
* A regular expression or a quoted text ends at a blank or a bracket, so `path=/srv/www` is an error, not two terms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal

import attrs

from deploykit.errors import SelectorError
from deploykit.fleet.patterns import KEYWORDS

TokenKind = Literal["(", ")", "!", "operator", "keyword", "word", "glob", "regex", "quoted", "end"]

_TOKEN = re.compile(
    r"""
      (?P<blank>   [ \t\r\n]+ )
    | (?P<regex>   / (?: [^/\\] | \\. )* / )
    | (?P<quoted>  " (?: [^"\\] | \\. )* " | ' (?: [^'\\] | \\. )* ' )
    | (?P<operator> == | =~ | =< | => | != | !~ | <= | >= | [=<>] )
    | (?P<mark>    [()!] )
    | (?P<word>    (?!/) (?: [^\s()!=<>"'&|\[] | \[ !? \]? [^\]\s]* \] )+ )
    """,
    re.VERBOSE | re.DOTALL,
).match
_GLOB = re.compile(r"[*?\[]").search
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_SHOWN: Final = 60
#: What a text begins with that is no token -> what to write.
_REMEDIES: Final = {
    "&": "write `and`",
    "|": "write `or`",
    "/": "a regular expression ends with a slash, `/^web/`; a text with a slash in front stands in quotes",
    '"': "close the quotes",
    "'": "close the quotes",
    "[": "close the bracket, or put the text in quotes",
}


@attrs.frozen(slots=True)
class Token:
    """One token: `text` is its meaning (a quoted text without quotes), `shown` what was written."""

    kind: TokenKind
    text: str
    position: int
    shown: str


def tokens(text: str) -> Iterator[Token]:
    """Return a selector's tokens, the last one of the kind `end`.

    Raises:
        SelectorError: at the first character that begins no token.
    """
    at = 0
    while at < len(text):
        found = _TOKEN(text, at)
        if found is None or not (found[0].isprintable() or found.lastgroup == "blank"):
            raise _unreadable(text, at, found[0] if found else text[at])
        if found.lastgroup != "blank":
            yield _token(text, found)
        at = found.end()
    yield Token("end", "", len(text), "")


def _token(text: str, found: re.Match[str]) -> Token:
    shown, at = found[0], found.start()
    match found.lastgroup:
        case "regex" | "quoted" if text[found.end() : found.end() + 1].strip("() \t\r\n"):
            raise _run_on(text, found)
        case "regex":
            return Token("regex", shown[1:-1], at, shown)
        case "quoted":
            return Token("quoted", _unquoted(text, found), at, shown)
        case "operator":
            return Token("operator", shown, at, shown)
        case "word":
            return Token("keyword" if shown in KEYWORDS else "glob" if _GLOB(shown) else "word", shown, at, shown)
    return Token("(" if shown == "(" else ")" if shown == ")" else "!", shown, at, shown)


def _unquoted(text: str, found: re.Match[str]) -> str:
    for escape in _ESCAPE.finditer(found[0]):
        if escape[1] not in "\\\"'":
            raise error_at(
                text, found.start() + escape.start(), f"{escape[0]!a} in quotes means nothing", r"write \\ for \ itself"
            )
    return _ESCAPE.sub(r"\1", found[0][1:-1])


def _run_on(text: str, found: re.Match[str]) -> SelectorError:
    after = text[found.end()]
    if found.lastgroup == "regex":
        problem = f"{shortened(found[0])} is a regular expression, and {after!a} follows it"
        return error_at(text, found.start(), problem, r"quote a text that begins with a slash; write \/ inside a regex")
    return error_at(text, found.end(), f"{after!a} follows a quoted text", "put a blank between, or quote all of it")


def _unreadable(text: str, at: int, piece: str) -> SelectorError:
    for offset, character in enumerate(piece):
        if not character.isprintable():
            return error_at(
                text, at + offset, f"the character U+{ord(character):04X} is not printed", "take it out of the selector"
            )
    twice = text[at : at + 2]
    shown = twice if twice in ("&&", "||") else piece
    return error_at(text, at, f"{shown!a} begins nothing that a selector knows", _REMEDIES.get(piece, ""))


def error_at(text: str, position: int, problem: str, remedy: str = "") -> SelectorError:
    """Return the error that names a place in a selector."""
    start = max(0, position - _SHOWN // 2)
    part = text[start : start + _SHOWN]
    shown = f"{'…' if start else ''}{part}{'…' if start + _SHOWN < len(text) else ''}"
    where = f" at character {position + 1} of {back_quoted(shown)}" if shown.strip() else ""
    return SelectorError(f"{problem}{where}", remedy, position=position)


def shortened(text: str) -> str:
    """Return a text for an error line, at most some words of it."""
    return back_quoted(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…")


def back_quoted(text: str) -> str:
    """Return a text between back quotes, what is not printed replaced."""
    return f"`{''.join(c if c.isprintable() else '·' for c in text)}`"
