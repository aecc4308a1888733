"""A build server of kind `http`: any that takes one request with a URL of its own.

Rules:

* `{NAME}` stands for the job, the correlation id, the job's own token (`{token}`) or a parameter. In the URL a value is
  percent-encoded whole, slashes too; in the body it is escaped as the body's type says.
* The URL's host is that of the settings; a value that makes a part of the path `.` or `..` is refused.
* The HMAC is over the body as it is sent.
* Such a server has no queue to look into: a lost answer stays lost, so an order may be carried out twice.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, quote_plus, unquote, urlsplit

from deploykit.daemons.jenkins.login import JenkinsLogin
from deploykit.daemons.jenkins.ports import BuildAnswer, BuildAnswerKind, BuildOrder, QueueState
from deploykit.errors import MayNotLook, SettingsError
from deploykit.httpclient.exchange import HttpServer, exchange
from deploykit.httpclient.reply import BUSY, HttpReply, HttpRequest, NoReply
from deploykit.messages.base import one_line
from deploykit.settings.buildservers import FORM_BODY, PLACEHOLDER, BuildServerSettings, header_problem
from deploykit.system.secretfile import read_secret_text

_REMEDIES: Final = {
    401: "check headers_file, or user and token_file",
    403: "give that login the right to start builds",
    404: "check the path in url, and the job's name",
    405: "check method and url",
    409: "look at the build server: it says that the job takes no builds",
    422: "compare body with what the build server expects",
}


class HttpBuildServer:
    """One build server of kind `http`, as `BuildServer`.

    Args:
        name: of the server in the settings.
        settings: how to reach it; `settings.problems()` is empty.
        now: the time of day, for `Retry-After`.
    """

    def __init__(
        self, name: str, settings: BuildServerSettings, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._name = name
        self._settings = settings
        self._login = JenkinsLogin(settings)
        self._now = now
        self._server: HttpServer | None = None

    def __repr__(self) -> str:
        return f"HttpBuildServer({self._name!r})"

    def start(self, order: BuildOrder, *, deadline: float) -> BuildAnswer:
        """Ask for a build; see `BuildServer.start`."""
        settings = self._settings
        kind: BuildAnswerKind = "refused"  # a file that is being replaced is there again in a moment
        try:
            token = self._login.secret(order.token_file, "token_file of the job") if order.token_file else None
            kind = "unreachable"  # what is the server's own concerns all of its jobs
            request = self._request(order, token)
            if self._server is None:
                self._server = HttpServer.of(
                    settings.url, ca_file=settings.ca_file, connect_timeout=settings.connect_timeout
                )
        except SettingsError as error:
            return self._answer(kind, error.problem, error.remedy, retry=True)
        except ValueError as error:
            return self._answer("refused", str(error), "correct url, body or the job's parameters")
        reply = exchange(self._server, request, seconds=min(settings.timeout, deadline))
        return self._read(self._login.scrub(reply))

    def find(self, order: BuildOrder, *, deadline: float) -> BuildAnswer | None:
        """Raise `MayNotLook`: there is no queue to look into."""
        del deadline
        raise MayNotLook("a server of kind http shows no queue")

    def follow(self, queue_item: int, *, order: BuildOrder, deadline: float) -> QueueState:
        """Return `hidden`: there is no queue to look into."""
        del queue_item, order, deadline
        return QueueState(kind="hidden", why="a server of kind http shows no queue")

    def _request(self, order: BuildOrder, token: str | None) -> HttpRequest:
        """Return the request for an order.

        Raises:
            SettingsError: a file with a secret cannot be used.
            ValueError: a value is missing, or cannot stand where it should.
        """
        settings = self._settings
        values = {**order.parameters, "job": order.job, "correlation_id": order.correlation_id}
        if token is not None:
            values["token"] = token
        body = fill_body(settings.body, settings.body_type, values).encode() if settings.body else None
        headers = [*settings.headers.items(), *self._login.headers()]
        if settings.headers_file is not None:
            secret = parse_headers(read_secret_text(settings.headers_file, "headers_file"))
            for _, value in secret:
                self._login.keep_hidden(value)
                self._login.keep_hidden(value.rpartition(" ")[2])  # what stands behind Bearer
            headers += secret
        if body is not None:
            headers.append(("Content-Type", settings.body_type))
        if settings.secret_file is not None:
            key = self._login.secret(settings.secret_file, "secret_file")
            headers.append((settings.signature_header, sign_body(key, body or b"")))
        target = fill_target(settings.url, values)
        return HttpRequest(method=settings.method, target=target, headers=tuple(headers), body=body)

    def _read(self, reply: HttpReply | NoReply) -> BuildAnswer:
        if isinstance(reply, NoReply):
            kind: BuildAnswerKind = "unanswered" if reply.sent else "unreachable"
            return self._answer(kind, reply.why, reply.remedy, retry=True)
        status, words = reply.status, reply.text()
        text = f'{status}: "{words}"' if words else f"{status}"
        if status in self._settings.accept:
            return self._answer("queued", f"the server took the request ({status})")
        if status in BUSY:
            after = reply.retry_after(self._now())
            return self._answer("busy", text, "look at the server if it stays so", retry=True, after=after)
        if status >= 500 or status < 200:
            return self._answer("unanswered", text, "look at the build server's log", retry=True)
        remedy = _REMEDIES.get(status, "look at the build server, or add the status to accept if it means yes")
        if 300 <= status < 400:
            text, remedy = f"{status}: a redirect, which is not followed", "set url to where it leads, if that is right"
        return self._answer("missing" if status == 404 else "refused", text, remedy)

    def _answer(
        self,
        kind: BuildAnswerKind,
        text: str,
        remedy: str = "",
        *,
        retry: bool = False,
        after: float | None = None,
    ) -> BuildAnswer:
        detail = self._login.hide(one_line(text, 500))
        return BuildAnswer(kind=kind, detail=detail, remedy=remedy, retry=retry, retry_after=after)


def fill_target(template: str, values: Mapping[str, str]) -> str:
    """Return path and query of a URL template, each value percent-encoded.

    >>> fill_target("https://ci/api/{job}/run?ref={REF}", {"job": "a/b", "REF": "refs/heads/x y"})
    '/api/a%2Fb/run?ref=refs%2Fheads%2Fx%20y'

    Raises:
        ValueError: a value is missing, or leads out of its part of the path.
    """
    parts = urlsplit(template)
    path = _fill(parts.path, values, lambda value: quote(value, safe=""))
    if {".", ".."} & set(unquote(path).replace("\\", "/").split("/")):  # some servers decode %2F, too
        raise ValueError("url: a value makes a part of the path . or ..")
    query = _fill(parts.query, values, lambda value: quote(value, safe=""))
    return f"{path or '/'}?{query}" if query else path or "/"


def fill_body(template: str, body_type: str, values: Mapping[str, str]) -> str:
    """Return a body, each value escaped as its type needs.

    >>> fill_body('{"ref": "{REF}"}', "application/json", {"REF": 'a"b'})
    '{"ref": "a\\\\"b"}'

    Raises:
        ValueError: a value is missing.
    """
    return _fill(template, values, quote_plus if body_type == FORM_BODY else _json_text)


def sign_body(key: str, body: bytes) -> str:
    """Return the HMAC-SHA256 of a body, as GitHub's receivers and many others expect it.

    >>> sign_body("It's a Secret to Everybody", b"Hello, World!")
    'sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17'
    """
    return f"sha256={hmac.new(key.encode(), body, hashlib.sha256).hexdigest()}"


def parse_headers(text: str) -> list[tuple[str, str]]:
    """Return the headers in a headers file: lines of `Name: value`; empty lines and those with `#` are skipped.

    Raises:
        SettingsError: a line is no header. The text names its number only.
    """
    headers = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        if not colon or header_problem(name, value.strip()):
            raise SettingsError(f"headers_file: line {number} is not a header we may send", "write Name: value")
        headers.append((name, value.strip()))
    return headers


def _fill(template: str, values: Mapping[str, str], escape: Callable[[str], str]) -> str:
    def value_of(hit: re.Match[str]) -> str:
        if hit[1] not in values:
            raise ValueError(f"{hit[0]}: the job has no parameter of that name")
        return escape(values[hit[1]])

    return PLACEHOLDER.sub(value_of, template)


def _json_text(value: str) -> str:
    return json.dumps(value)[1:-1]


__all__ = ["HttpBuildServer", "fill_body", "fill_target", "parse_headers", "sign_body"]
