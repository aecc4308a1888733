"""How the console refuses a request before any view sees it: a page for people, problem+json for programs. Pure."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import attrs
from starlette.responses import Response

from deploykit.settings.web import WebSettings
from deploykit.web.login.hosts import HostRule

#: By which header a program logs in.
BASIC_CHALLENGE: Final = 'Basic realm="deploykit", charset="UTF-8"'
BEARER_CHALLENGE: Final = 'Bearer realm="deploykit"'
#: How people do, by the form: a scheme that no browser opens a window of its own for.
FORM_CHALLENGE: Final = 'Session realm="deploykit"'

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


def wrong_host(rule: HostRule) -> AccessRefusal:
    """Return the refusal of a request for another host."""
    way = f"Open {rule.url}" if rule.host else "Open it by localhost, or name its address in the setting [web] url."
    return AccessRefusal(status=421, detail=f"This console is not reached by that name. {way}")


def no_text() -> AccessRefusal:
    """Return the refusal of a request with a NUL, which no name has and no database keeps."""
    return AccessRefusal(status=400, detail="The address or the form holds a NUL, which nothing here is called.")


def not_ours(audit: str) -> AccessRefusal:
    """Return the refusal of a request that another page may have sent."""
    return AccessRefusal(
        status=403,
        detail="This did not come from a page of this console, or the page was too old. Load it again, and try again.",
        audit=audit,
    )


def not_logged_in(settings: WebSettings, path: str, *, browser: bool) -> AccessRefusal:
    """Return the refusal of a request of nobody that cannot be sent to the login page."""
    if settings.login == "proxy":
        where = settings.url or "the proxy"
        return AccessRefusal(
            status=403,
            detail=f"The proxy in front of the console did not send {settings.proxy_header}: log in by {where}.",
        )
    by_header = BASIC_CHALLENGE if settings.login == "password" else BEARER_CHALLENGE
    challenge = FORM_CHALLENGE if browser or not wants_json(path) else by_header
    return AccessRefusal(status=401, detail="Log in first.", headers={"WWW-Authenticate": challenge}, link="/login")


def no_rights(name: str) -> AccessRefusal:
    """Return the refusal of somebody whom no rule names."""
    return AccessRefusal(
        status=403,
        detail=f"You are logged in as {name}, but no [[web.access]] names you. Ask whoever looks after the settings.",
        audit="no [[web.access]] names them",
    )


def ledger_away() -> AccessRefusal:
    """Return the refusal while nobody can tell who is logged in."""
    return AccessRefusal(
        status=503,
        detail="The console cannot read who is logged in: its database is away. Its log says why.",
        headers={"Retry-After": "5"},
    )


def wants_json(path: str) -> bool:
    """Return whether a path is one of the API, whose errors are problem+json."""
    return path.startswith("/api/")


__all__ = [
    "BASIC_CHALLENGE",
    "BEARER_CHALLENGE",
    "FORM_CHALLENGE",
    "AccessRefusal",
    "ledger_away",
    "no_rights",
    "no_text",
    "not_logged_in",
    "not_ours",
    "wants_json",
    "wrong_host",
]
