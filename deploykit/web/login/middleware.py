"""Every request passes here before a view: its host, who looks, where it comes from, how large it is.

Rules:

* `request.state.viewer` is set for every view; where nobody is logged in, it is a viewer without grants.
* Paths of webhooks are `open`: they have signatures of their own, and caps of their own.
* Static files and the login itself need no login, but the right host.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from deploykit.settings.web import WebSettings
from deploykit.web.login.headers import SecurityHeadersMiddleware
from deploykit.web.login.hosts import HostRule
from deploykit.web.login.refusals import AccessRefusal, wants_json
from deploykit.web.viewer import EVERYBODY, Viewer

#: Nobody is logged in.
NOBODY = Viewer()


class LoginMiddleware:
    """Decides of each request who looks, or answers it."""

    def __init__(self, app: ASGIApp, *, settings: WebSettings, open_paths: Collection[str] = ()) -> None:
        self._app = app
        self._hosts = HostRule.of(settings.url)
        self._open = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["viewer"] = NOBODY
        if scope["path"] not in self._open:
            refused = self._refusal(Headers(scope=scope))
            if refused is not None:
                await refused.answer(as_json=wants_json(scope["path"]))(scope, receive, send)
                return
            state["viewer"] = EVERYBODY
        await self._app(scope, receive, send)

    def _refusal(self, headers: Headers) -> AccessRefusal | None:
        if not self._hosts.takes(headers.getlist("host")):
            return wrong_host(self._hosts)
        return None


def wrong_host(rule: HostRule) -> AccessRefusal:
    """Return the refusal of a request for another host."""
    way = (
        f"Open {rule.scheme}://{rule.host}/."
        if rule.host
        else "Open it by localhost, or name its address in the setting [web] url."
    )
    return AccessRefusal(status=421, detail=f"This console is not reached by that name. {way}")


def login_middleware(settings: WebSettings, *, open_paths: Collection[str] = ()) -> Sequence[Middleware]:
    """Return the middleware of a console, the outermost first.

    Args:
        settings: `[web]`.
        open_paths: paths of webhooks, which check their requests themselves.
    """
    return (
        Middleware(SecurityHeadersMiddleware),
        Middleware(LoginMiddleware, settings=settings, open_paths=open_paths),
    )


__all__ = ["NOBODY", "LoginMiddleware", "login_middleware", "wrong_host"]
