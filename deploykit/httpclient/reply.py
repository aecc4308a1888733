"""One HTTP request and what came of it, as values. Pure."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import attrs

from deploykit.system.oneline import one_line

#: Statuses that mean: not now, ask again.
BUSY: Final = frozenset({408, 425, 429, 503})
_TAGS: Final = re.compile(r"<(?:style|script|head)\b.*?</(?:style|script|head)>|<[^<>]*>", re.DOTALL | re.IGNORECASE)
#: Bytes of a body that its text is made of: enough for an error page, and few enough for the expression above.
_READ: Final = 4096
_LONGEST_PAUSE: Final = 86400.0


@attrs.frozen(kw_only=True, slots=True)
class HttpRequest:
    """What to send. Headers and body may hold secrets, so neither is in `repr`.

    Args:
        target: path and query, as they stand in the request line.
    """

    method: str
    target: str = attrs.field(repr=False)
    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), repr=False)
    body: bytes | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True, slots=True)
class HttpReply:
    """What a server answered.

    Args:
        body: its beginning, as much as was wanted.
        whole: whether that is all of it.
        hide: takes secrets out of what is shown. What is decided or parsed is the answer itself: a word such as `build`
            may be somebody's token.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = attrs.field(default=b"", repr=False)
    whole: bool = True
    hide: Callable[[str], str] = attrs.field(default=str, repr=False, eq=False)

    def header(self, name: str) -> str:
        """Return the first header of a name, or an empty text."""
        return next(iter(self.all_headers(name)), "")

    def all_headers(self, name: str) -> list[str]:
        """Return each header of a name."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def text(self) -> str:
        """Return the body without its markup, as one bounded line for people."""
        raw = self.hide(self.body.decode("utf-8", "replace"))[:_READ]  # cut first, half a secret would stay
        return one_line(" ".join(html.unescape(_TAGS.sub(" ", raw)).split()), 200)

    def shown(self, text: str, limit: int = 200) -> str:
        """Return a part of the answer as one bounded line for people."""
        return one_line(self.hide(text), limit)

    def retry_after(self, now: datetime) -> float | None:
        """Return the seconds that the server asks to wait, a day at most; None where it does not."""
        value = self.header("Retry-After").strip()
        if not value:
            return None
        if value.isascii() and value.isdecimal():
            return min(_LONGEST_PAUSE, float(value[:9]))
        try:
            when = parsedate_to_datetime(value)
        except (ValueError, IndexError, TypeError):
            return None
        seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)) - now
        return min(_LONGEST_PAUSE, max(0.0, seconds.total_seconds()))


@attrs.frozen(kw_only=True, slots=True)
class NoReply:
    """No usable answer came.

    Args:
        sent: whether any part of the request may have reached the server.
        why: what happened, with the server's name.
        remedy: what to look at.
    """

    sent: bool
    why: str
    remedy: str


__all__ = ["HttpReply", "HttpRequest", "NoReply"]
