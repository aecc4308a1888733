"""Count requests: what was asked for, how it was answered, and which streams are open. The outermost middleware."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deploykit.daemons.service.metrics import Metrics

_EVENTS: Final = "/api/v1/events"
_BELOW: Final = (("/api/", "api"), ("/static/", "static"))


def part_of(path: str, hooks: Collection[str]) -> str:
    """Return what a path asks for: `page`, `api`, `events`, `static` or `hook`."""
    if path == _EVENTS:
        return "events"
    if path in hooks:
        return "hook"
    return next((part for prefix, part in _BELOW if path.startswith(prefix)), "page")


class RequestCounter:
    """Counts, and hands on. Its own numbers are used in the event loop alone.

    Args:
        app: what answers.
        metrics: where it counts.
        hooks: paths of webhooks.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, hooks: Collection[str] = ()) -> None:
        self._app = app
        self._metrics = metrics
        self._hooks = frozenset(hooks)
        self._readers = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        part, answer = part_of(str(scope["path"]), self._hooks), "aborted"

        async def count(message: Message) -> None:
            nonlocal answer
            if message["type"] == "http.response.start":
                answer = f"{int(message['status']) // 100}xx"
                if part == "events" and answer == "2xx":
                    self._open(1)
            await send(message)

        try:
            await self._app(scope, receive, count)
        finally:
            self._metrics.web_answered(part, answer)
            if part == "events" and answer == "2xx":
                self._open(-1)

    def _open(self, change: int) -> None:
        self._readers += change
        self._metrics.web_readers(self._readers)


__all__ = ["RequestCounter", "part_of"]
