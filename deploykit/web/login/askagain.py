"""The answer to a link from another site, which comes without our cookie: a page that asks for the same page again.

Rules:

* The cookie is SameSite=Strict. What our own page asks for comes with it, so nobody logs in again for a link in a chat.
* The fragment stays: a signature that was made at another origin comes back in it. Without script it is lost.
"""

from __future__ import annotations

import html

from starlette.responses import HTMLResponse, Response
from starlette.types import Scope

from deploykit.web.pages.assets import assets

_PAGE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>deploykit</title>'
    '<script src="{script}"></script>'
    '<noscript><meta http-equiv="refresh" content="0; url={address}"></noscript></head><body></body></html>'
)


def ask_again(scope: Scope) -> Response:
    """Return the page that asks for the address of a request again."""
    base, query = str(scope.get("root_path", "")).rstrip("/"), scope["query_string"].decode("latin-1")
    raw = scope.get("raw_path")
    path = raw.decode("latin-1") if raw else str(scope["path"])
    # A path of two slashes would be another host's, and browsers take a backslash for a slash.
    address = "/" + path.replace("\\", "%5C").lstrip("/") + (f"?{query}" if query else "")
    script = f"{base}/static/{assets()['again.mjs'].name}"
    return HTMLResponse(_PAGE.format(script=html.escape(script), address=html.escape(address)))


__all__ = ["ask_again"]
