"""How the console refuses a request before any view sees it: a page for people, problem+json for programs. Pure."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import attrs
from starlette.responses import Response

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} - deploykit</title>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{detail}</p>
{links}</main>
</body>
</html>
"""


@attrs.frozen(kw_only=True, slots=True)
class AccessRefusal:
    """A request that no view gets.

    Args:
        status: HTTP status code.
        detail: what is wrong and the way out, for the person who asked; never a secret.
        audit: what the audit says of it; empty: nothing.
        headers: more headers of the answer.
        link: where to go on, a path of ours.
    """

    status: int
    detail: str
    audit: str = ""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    link: str = ""

    @property
    def title(self) -> str:
        """The phrase of the status."""
        return HTTPStatus(self.status).phrase

    def answer(self, *, as_json: bool) -> Response:
        """Return the answer: problem+json (RFC 9457), or a page."""
        if as_json:
            problem = {"type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail}
            return Response(json.dumps(problem), self.status, dict(self.headers), media_type="application/problem+json")
        links = f'<p><a href="{html.escape(self.link)}">Go on</a></p>\n' if self.link else ""
        page = _PAGE.format(title=html.escape(self.title), detail=html.escape(self.detail), links=links)
        return Response(page, self.status, dict(self.headers), media_type="text/html")


def wants_json(path: str) -> bool:
    """Return whether a path is one of the API, whose errors are problem+json."""
    return path.startswith("/api/")


__all__ = ["AccessRefusal", "wants_json"]
