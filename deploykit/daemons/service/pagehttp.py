"""As much of HTTP/1.1 as three small pages need: one request with GET or HEAD, one answer, then the end. Pure."""

from __future__ import annotations

import re
from typing import Final

import attrs

#: Bytes of the longest request.
MAX_HEAD: Final = 8192
TEXT: Final = "text/plain; charset=utf-8"

_LINE: Final = re.compile(rb"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.[01]\Z").match
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}


@attrs.frozen(slots=True)
class Page:
    """An answer: its status, what it says, and of which media type that is."""

    status: int
    body: bytes
    content_type: str = TEXT

    @classmethod
    def of_lines(cls, status: int, *lines: str) -> Page:
        """Return a page of text; control characters in a line become blanks."""
        shown = ("".join(c if c.isprintable() else " " for c in line) for line in lines)
        return cls(status, "".join(f"{line}\n" for line in shown).encode(errors="replace"))


@attrs.frozen(slots=True)
class PageRequest:
    """A request: the path without its query, and whether only the head of the answer is wanted."""

    path: str
    head_only: bool = False


def read_request(received: bytes) -> PageRequest | Page | None:
    """Return the request that the bytes of a connection hold; None while it is not whole; the answer to a wrong one."""
    end = re.search(rb"\r?\n\r?\n", received)
    if end is None:
        if len(received) > MAX_HEAD:
            return Page.of_lines(431, f"the request has more than {MAX_HEAD} bytes")
        return None
    if end.end() > MAX_HEAD:
        return Page.of_lines(431, f"the request has more than {MAX_HEAD} bytes")
    found = _LINE(received.split(b"\n", 1)[0].rstrip(b"\r"))
    if found is None:
        return Page.of_lines(400, "this is no HTTP/1.1 request for a path")
    if found[1] not in (b"GET", b"HEAD"):
        return Page.of_lines(405, "only GET and HEAD")
    return PageRequest(found[2].split(b"?", 1)[0].decode("ascii"), found[1] == b"HEAD")


def answer_bytes(page: Page, *, head_only: bool = False) -> bytes:
    """Return what goes over the connection."""
    lines = [
        f"HTTP/1.1 {page.status} {_REASONS[page.status]}",
        f"Content-Type: {page.content_type}",
        f"Content-Length: {len(page.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
        *(["Allow: GET, HEAD"] if page.status == 405 else []),
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("ascii") + (b"" if head_only else page.body)
