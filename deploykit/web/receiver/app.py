"""The webhook receiver as an ASGI application: of its own, in the console, or in anybody's application.

Example::

    publish = outbox_publisher(Outbox("/var/spool/deploykit"), settings)
    with DeliveryStore(Path("/var/lib/deploykit/webhook/deliveries.db")) as seen:
        app = make_receiver(settings.webhook, publish, seen)

Rules:

* One path for each source; its forge is in the settings and never guessed.
* POST only. Method, type and encoding are judged before the body is read.
* An answer is JSON: `application/problem+json` (RFC 9457) where the request is not taken.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from deploykit.errors import WebhookRefused
from deploykit.hooking.enqueue import outgoing_of
from deploykit.messages import Message, one_line, utc_now
from deploykit.messages.topics import TopicMap
from deploykit.outbox import Outbox
from deploykit.settings.webhook import WebhookSettings
from deploykit.web.receiver.arriving import Bodies, SenderGone, headers_of
from deploykit.web.receiver.deliveries import SeenDeliveries
from deploykit.web.receiver.intake import RETRY_AFTER, Publish, WebhookAnswer, WebhookIntake
from deploykit.web.receiver.payload import kind_of

#: Of every answer. The receiver serves no page; a browser that was led to it shows nothing of it.
_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
#: The connection is not usable any more: part of the body may still be on its way.
_UNREAD: Final = (408, 413, 503)


def outbox_publisher(
    outbox: Outbox,
    settings: WebhookSettings,
    topics: TopicMap | None = None,
    *,
    legacy: bool = False,
    legacy_deletes: bool = False,
) -> Publish:
    """Return what puts messages, and the human line of each, into an outbox by one durable write.

    Args:
        outbox: the spool.
        settings: whether with human lines, and in which form.
        topics: where they go; None: the usual ones.
        legacy: write the original's form whatever `settings` say.
        legacy_deletes: with that form, also write deletions in it, and not only their human lines.
    """
    where = topics if topics is not None else TopicMap()

    def publish(messages: Sequence[Message]) -> None:
        items = outgoing_of(
            messages,
            where,
            notices=settings.notices,
            legacy=legacy or settings.legacy,
            legacy_deletes=legacy_deletes,
        )
        if items:
            outbox.put_many(items)

    return publish


def make_receiver(
    settings: WebhookSettings,
    publish: Publish,
    seen: SeenDeliveries,
    *,
    now: Callable[[], datetime] = utc_now,
    count: Callable[[str, str], None] = lambda _source, _result: None,
) -> Starlette:
    """Return the application. Each source of the settings has its path in it.

    Args:
        settings: the receiver's.
        publish: puts messages into the outbox; see `outbox_publisher`.
        seen: which deliveries were published; see `DeliveryStore`.
        now: the wall clock.
        count: called with source and result of each request.

    Raises:
        SettingsError: a file with a secret cannot be used.
    """
    return receiver_app(settings, WebhookIntake(settings, publish, seen, now=now, count=count))


def receiver_app(settings: WebhookSettings, intake: WebhookIntake) -> Starlette:
    """Return the application for an intake."""
    app = Starlette(routes=receiver_routes(settings, intake), exception_handlers={HTTPException: _not_found})
    app.router.redirect_slashes = False  # a sender follows no redirect, and would lose the delivery
    return app


def receiver_routes(settings: WebhookSettings, intake: WebhookIntake) -> list[BaseRoute]:
    """Return a route for each source, to be mounted in an application."""
    bodies = Bodies(settings.max_body, settings.deadline)
    return [
        Route(settings.path_of(name), SourceEndpoint(name, intake, bodies), name=f"webhook-{name}")
        for name in settings.sources
    ]


class SourceEndpoint:
    """What answers at the path of one source: an ASGI application.

    Args:
        name: of the source.
        intake: takes what has arrived.
        bodies: reads it.
    """

    def __init__(self, name: str, intake: WebhookIntake, bodies: Bodies) -> None:
        self._name = name
        self._intake = intake
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = headers_of(scope)
        client = scope.get("client")
        peer = one_line(str(client[0]), 60) if client else ""
        try:
            answer = await self._answer(scope, receive, headers, peer)
        except SenderGone:
            return
        await answer_response(answer)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, headers: Mapping[str, str], peer: str) -> WebhookAnswer:
        try:
            if scope["method"] != "POST":
                raise WebhookRefused(
                    f"{one_line(scope['method'], 20)} is not taken", "choose POST at the sender", status=405
                )
            kind_of(headers)
        except WebhookRefused as error:
            await self._bodies.drop(headers, receive)
            return self._intake.refuse(self._name, error, headers, 0, peer=peer)
        try:
            raw = await self._bodies.read(headers, receive)
        except WebhookRefused as error:
            return self._intake.refuse(self._name, error, headers, 0, peer=peer)
        try:
            return await run_in_threadpool(self._intake.take, self._name, headers, raw, peer=peer)
        finally:
            self._bodies.release(len(raw))


def answer_response(answer: WebhookAnswer) -> Response:
    """Return an answer as HTTP has it."""
    headers = {**_HEADERS, **answer.headers}
    if answer.status == 405:
        headers["allow"] = "POST"
    if answer.status == 503:
        headers.setdefault("retry-after", str(RETRY_AFTER))
    if answer.status in _UNREAD:
        headers["connection"] = "close"
    body: dict[str, object]
    if answer.status < 400:
        body = {"result": answer.result, "detail": answer.detail, "messages": answer.messages}
        if answer.read is not None and answer.read.id:
            body["delivery"] = answer.read.id
        return _json(body, answer.status, headers, "application/json")
    return _problem(answer.status, answer.detail, headers)


async def _not_found(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return _problem(status, "no source is received here: see webhook.sources in the settings", _HEADERS)


def _problem(status: int, detail: str, headers: Mapping[str, str]) -> Response:
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return _json(body, status, headers, "application/problem+json")


def _json(body: Mapping[str, object], status: int, headers: Mapping[str, str], media_type: str) -> Response:
    return Response(json.dumps(body).encode(), status, {**headers}, media_type)


__all__ = [
    "SourceEndpoint",
    "answer_response",
    "make_receiver",
    "outbox_publisher",
    "receiver_app",
    "receiver_routes",
]
