"""The page of a node's log in a rollout, and the same as plain text, whole or by ranges.

Rules:

* Without script the page has 1,000 lines, and links to those before and after.
* The text by ranges is what the script of the page reads; how many lines there are stands in its headers.
* The whole text is sent in pieces: a log of any length takes little memory here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from deploykit.web.pages.errors import not_found
from deploykit.web.pages.logtext import shown_lines
from deploykit.web.pages.render import render
from deploykit.web.projection.queries import Queries
from deploykit.web.projection.rolloutviews import LogSlice
from deploykit.web.requests import context_of, viewer_of
from deploykit.web.rolloutlookup import find_log
from deploykit.web.viewer import Viewer

#: Lines of one page, of one block that a browser lays out at once, and of one piece of the whole text.
PAGE_LINES: Final = 1000
BLOCK_LINES: Final = 500
_PIECE: Final = 5000
_MOST: Final = 5000


@attrs.frozen(kw_only=True, slots=True)
class LogBlock:
    """Lines that a browser lays out together. `text` is escaped here: nothing hidden is left in it to look for."""

    first: int
    count: int
    numbers: str
    text: Markup


def log(request: Request) -> Response:
    """Return the page of a log: the last lines, or those from `?from=` on, counted from 1."""
    context, viewer = context_of(request), viewer_of(request)
    rollout, node = str(request.path_params["id"]), str(request.path_params["node"])
    first = _number(request, "from", 0)
    found = find_log(context, viewer, rollout, node, first - 1 if first else -PAGE_LINES, PAGE_LINES)
    if found is None:
        return not_found(request, "log", f"of {node} in {rollout}")
    blocks = [_block(found, at) for at in range(0, len(found.lines), BLOCK_LINES)]
    return render(
        request,
        "log.html",
        rollout=rollout,
        node=node,
        slice=found,
        last=found.first + len(found.lines),
        blocks=blocks,
        page_lines=PAGE_LINES,
    )


def _block(found: LogSlice, at: int) -> LogBlock:
    lines, first = found.lines[at : at + BLOCK_LINES], found.first + at + 1
    numbers = "\n".join(map(str, range(first, first + len(lines))))
    return LogBlock(first=first, count=len(lines), numbers=numbers, text=escape(shown_lines(lines)))


def log_text(request: Request) -> Response:
    """Return a log as text: the whole, or `?limit=` lines from `?from=` on, counted from 1.

    Headers of a range: `Log-First` (of the first line, counted from 1), `Log-Total`, `Log-Open` (`1` or `0`).
    """
    context, viewer = context_of(request), viewer_of(request)
    rollout, node = str(request.path_params["id"]), str(request.path_params["node"])
    first, limit = _number(request, "from", 0), min(_number(request, "limit", 0), _MOST)
    found = find_log(context, viewer, rollout, node, max(first - 1, 0), limit or _PIECE)
    if found is None:
        return PlainTextResponse("There is no such log.\n", status_code=404)
    headers = {"Cache-Control": "no-store", **_headers(found)}
    if limit:
        return PlainTextResponse(shown_lines(found.lines), headers=headers)
    body = _whole(context.queries, viewer, rollout, node, found)
    return StreamingResponse(body, media_type="text/plain; charset=utf-8", headers=headers)


def _headers(found: LogSlice) -> dict[str, str]:
    return {"Log-First": str(found.first + 1), "Log-Total": str(found.total), "Log-Open": str(int(found.open))}


def _whole(queries: Queries, viewer: Viewer, rollout: str, node: str, found: LogSlice | None) -> Iterator[str]:
    if found is not None and found.lost:
        yield f"[{found.lost} lines before these were cut off: there were too many]\n"
    while found is not None and found.lines:
        yield shown_lines(found.lines)
        found = queries.log(viewer, rollout, node, found.first + len(found.lines), _PIECE)


def _number(request: Request, name: str, missing: int) -> int:
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else missing


def routes() -> list[BaseRoute]:
    """Return the routes of these pages."""
    return [
        Route("/deploys/{id}/nodes/{node}/log", log, name="log"),
        Route("/deploys/{id}/nodes/{node}/log.txt", log_text, name="log-text"),
    ]


__all__ = ["BLOCK_LINES", "PAGE_LINES", "LogBlock", "log", "log_text", "routes"]
