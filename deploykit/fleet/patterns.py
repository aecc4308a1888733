"""The three ways to name a text in a selector: the text itself, a glob, a regular expression.

* A text equals the whole of another, case and all.
* A glob (`* ? [a-z] [!a]`) matches the whole of another.
* A regular expression is searched anywhere; it is google-re2's, so none takes longer than linear time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate
from functools import lru_cache
from typing import Final

import attrs

from deploykit.system.regex import compile_regex

#: Words of the grammar; a value that is one of them stands in quotes.
KEYWORDS: Final = frozenset({"and", "or", "not"})
#: One character of a plain word: everything that has no meaning of its own.
WORD_CHARACTERS: Final = r"[^\s()!=<>\"'&|*?\[\]]"

_PLAIN = re.compile(rf"(?!/){WORD_CHARACTERS}+\Z").match


@attrs.frozen(slots=True)
class Exactly:
    """A text that stands for itself."""

    text: str

    def found_in(self, text: str) -> bool:
        """Return whether it is the whole of a text."""
        return self.text == text

    def __str__(self) -> str:
        if _PLAIN(self.text) and self.text not in KEYWORDS:
            return self.text
        quote = "'" if '"' in self.text and "'" not in self.text else '"'
        return quote + self.text.replace("\\", "\\\\").replace(quote, f"\\{quote}") + quote


@attrs.frozen(slots=True)
class Glob:
    """A shell's pattern."""

    text: str
    _match: Callable[[str], object] = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_match", _compile_glob(self.text))

    def found_in(self, text: str) -> bool:
        """Return whether it matches the whole of a text."""
        return self._match(text) is not None

    def __str__(self) -> str:
        return self.text


@attrs.frozen(slots=True)
class Regex:
    """A regular expression, as it stands between its slashes: a slash inside is `\\/`.

    Raises:
        UsageError: google-re2 is not installed, or does not accept the expression.
    """

    source: str
    _search: Callable[[str], bool] = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_search", compile_regex(self.source))

    def found_in(self, text: str) -> bool:
        """Return whether it is found anywhere in a text."""
        return self._search(text)

    def __str__(self) -> str:
        return f"/{self.source}/"


Pattern = Exactly | Glob | Regex


@lru_cache(maxsize=256)
def _compile_glob(text: str) -> Callable[[str], object]:
    # fnmatch's expressions do not go back past a `*` that they have matched.
    return re.compile(translate(text)).match
