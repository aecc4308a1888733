"""The API of a console, asked: one request, its answer, its errors in our words.

Rules:

* The token goes to the host of the settings alone: no redirect is followed, no proxy is read from the environment.
* TLS is verified. Plain http only to this machine.
* What changes something has an Idempotency-Key of its own. Where no answer came it is sent again, and done once.
* Nothing of an answer is believed because a console says it: whoever signs decodes the bytes that are signed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, TypeVar
from urllib.parse import urlencode

import attrs

from deploykit.errors import (
    ActionRefused,
    ConsoleUnreachable,
    MessageError,
    PolicyRefused,
    SettingsError,
    UsageError,
)
from deploykit.httpclient.exchange import HttpServer, exchange
from deploykit.httpclient.reply import HttpReply, HttpRequest, NoReply
from deploykit.messages.base import new_id, one_line
from deploykit.settings.via import ViaSettings, console_url_problem
from deploykit.system.secretfile import read_secret
from deploykit.via.answers import items_of, read_answer
from deploykit.wire.strictjson import parse

T = TypeVar("T")

PREFIX: Final = "/api/v1"
#: Bytes of the longest answer: a page of 500 nodes with their steps, or a mandate for 10,000 nodes.
MOST_ANSWER: Final = 16 << 20
#: Pauses before a request without an answer is sent again.
_PAUSES: Final = (0.5, 2.0)
_CONNECT: Final = 10.0
#: Answers of a proxy without its console; and those that may say when to come back (409: the first attempt is at work).
_AGAIN: Final = frozenset({502, 504})
_WHEN_ASKED: Final = frozenset({409, 429, 503})
_LONGEST_PAUSE: Final = 10.0

#: Sends one request: the server, the request, seconds for it.
Exchange = Callable[[HttpServer, HttpRequest, float], HttpReply | NoReply]


def _exchange(server: HttpServer, request: HttpRequest, seconds: float) -> HttpReply | NoReply:
    return exchange(server, request, seconds=seconds, kept=MOST_ANSWER)


@attrs.frozen(kw_only=True, slots=True)
class ConsoleAnswer:
    """What a console answered: `value` is JSON, `location` where to look then, `newest` the newest event."""

    status: int
    value: object
    location: str = ""
    newest: str = ""


class ConsoleClient:
    """Asks one console.

    Args:
        settings: which, and with which token.
        token_from: what named the file of the token, for errors.
        send: one request. sleep: between attempts.

    Raises:
        UsageError: its URL cannot be used.
        SettingsError: the token or the certificates cannot be used.
    """

    def __init__(
        self,
        settings: ViaSettings,
        *,
        token_from: str = "via.token_file",  # noqa: S107 - the name of a setting
        send: Exchange = _exchange,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if problem := console_url_problem(settings.url):
            raise UsageError(f"--via {one_line(settings.url, 100)}: {problem}", "give the console's URL")
        self.url = settings.url.rstrip("/")
        self.server = HttpServer.of(self.url, ca_file=settings.ca_file, connect_timeout=_CONNECT)
        self._token = _token(settings, token_from)
        self._timeout = settings.timeout
        self._send = send
        self._sleep = sleep

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Headers that every request has; they hold the token."""
        return (("Authorization", f"Bearer {self._token}"),) if self._token else ()

    def get(self, path: str, query: Mapping[str, str] | None = None) -> ConsoleAnswer:
        """Return what is at a path below `/api/v1`.

        Raises:
            ConsoleUnreachable: no answer came.
            ActionRefused, PolicyRefused, UsageError: it was answered with an error.
        """
        target = f"{path}?{urlencode(query)}" if query else path
        return self._asked("GET", target, None, ())

    def read(self, cls: type[T], path: str, query: Mapping[str, str] | None = None) -> T:
        """Return what is at a path, as a value of a class; errors as of `get`, and `ActionRefused` if it is none."""
        return read_answer(cls, self.get(path, query).value)

    def items(self, cls: type[T], path: str, query: Mapping[str, str] | None = None) -> list[T]:
        """Return the items of a page of a list; errors as of `read`."""
        return [read_answer(cls, value) for value in items_of(self.get(path, query).value)]

    def do(self, method: str, path: str, body: object = None, query: Mapping[str, str] | None = None) -> ConsoleAnswer:
        """Have something done, once, however often it must be sent; errors as of `get`.

        Args:
            body: an object of the classes of the API's bodies, made of plain values.
        """
        raw = None if body is None else json.dumps(body).encode()
        named = [("Idempotency-Key", new_id())]
        if raw is not None:
            named.append(("Content-Type", "application/json"))
        target = f"{path}?{urlencode(query)}" if query else path
        return self._asked(method, target, raw, tuple(named))

    def done(
        self, cls: type[T], method: str, path: str, body: object = None, query: Mapping[str, str] | None = None
    ) -> T:
        """Have something done as `do` does, and return what came of it, as a value of a class; errors as of `read`."""
        return read_answer(cls, self.do(method, path, body, query).value)

    def _asked(self, method: str, target: str, body: bytes | None, named: tuple[tuple[str, str], ...]) -> ConsoleAnswer:
        headers = (("Accept", "application/json"), *self.headers, *named)
        request = HttpRequest(method=method, target=f"{PREFIX}{target}", headers=headers, body=body)
        for pause in _PAUSES:
            reply = self._send(self.server, request, self._timeout)
            wanted = pause if isinstance(reply, NoReply) else _pause_for(reply, pause)
            if wanted is None:
                break
            self._sleep(wanted)
        else:
            reply = self._send(self.server, request, self._timeout)
        if isinstance(reply, NoReply):
            raise ConsoleUnreachable(f"the console {reply.why}", reply.remedy)
        return self._answer(reply)

    def _answer(self, reply: HttpReply) -> ConsoleAnswer:
        if 300 <= reply.status < 400:
            where = reply.shown(reply.header("Location"), 100)
            raise ActionRefused(f"{self.url} sends us on to {where}", "give that URL, if it is your console's")
        if not reply.whole:
            raise ActionRefused(f"the answer of {self.url} was cut off", "try again")
        kind = reply.header("Content-Type").partition(";")[0].strip().lower()
        if not 200 <= reply.status < 300:
            raise _refusal(self.url, reply, kind, has_token=bool(self._token))
        if kind != "application/json":
            raise ActionRefused(f"{self.url} is no console of ours: it answers {kind or 'nothing'}", "check the URL")
        return ConsoleAnswer(
            status=reply.status,
            value=_json(reply.body, self.url),
            location=reply.header("Location"),
            newest=reply.header("X-Last-Event-ID"),
        )


def _pause_for(reply: HttpReply, pause: float) -> float | None:
    """Return the seconds after which to ask again; None where the answer is one."""
    asked = reply.retry_after(datetime.now(UTC))
    if reply.status in _AGAIN or (reply.status in _WHEN_ASKED and asked is not None):
        return min(_LONGEST_PAUSE, asked or pause)
    return None


def _token(settings: ViaSettings, named: str) -> str:
    if settings.token_file is None:
        return ""
    token = read_secret(settings.token_file, named)
    if not token.isascii() or " " in token:
        raise SettingsError(f"{named}: {settings.token_file} holds no API token", "make one on the account page")
    return token


def _json(body: bytes, url: str) -> object:
    try:
        return parse(body, limit=MOST_ANSWER)
    except MessageError as error:
        raise ActionRefused(f"{url} answers what is no JSON: {error.problem}", "check the URL") from None


def _refusal(url: str, reply: HttpReply, kind: str, *, has_token: bool) -> ActionRefused | PolicyRefused | UsageError:
    """Return the error that a problem of the API is."""
    detail, fields = f"HTTP status {reply.status}", list[str]()
    if kind == "application/problem+json":
        found = _json(reply.body, url)
        if isinstance(found, dict):
            detail = one_line(str(found.get("detail") or detail), 500)
            errors = found.get("errors")
            for each in errors[:20] if isinstance(errors, list) else ():
                if isinstance(each, dict):
                    fields.append(one_line(f"{each.get('parameter')}: {each.get('detail')}", 300))
    if reply.status in (400, 422):
        return UsageError(detail, problems=tuple(fields) if len(fields) > 1 else ())
    if reply.status in (401, 403):
        where = f"make one at {url}/account, and name its file: --via-token FILE"
        remedy = "" if reply.status == 403 else where.replace("one", "another", 1) if has_token else where
        return PolicyRefused(f"{url}: {detail}", remedy)
    return ActionRefused(f"{url}: {detail}", status=reply.status)


__all__ = ["MOST_ANSWER", "PREFIX", "ConsoleAnswer", "ConsoleClient", "Exchange"]
