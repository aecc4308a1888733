"""Channels that are an HTTP request for each letter: Matrix, Slack's kind of webhook, signed webhooks, CDEvents.

Rules:

* No redirect is followed and no proxy is used: a letter and its token go to the host of the settings or nowhere.
* Secrets are read for each letter, so a new one counts at once. None is in an error: of an answer only its status and
  words of a known form are shown.
* What a server may take later (408, 425, 429, 5xx, no answer) is sent again under the same id.
* What it refuses because of the letter (400, 413, 422) is dropped. What it refuses because of us (401, 403, 404) waits
  for a person.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final
from urllib.parse import quote, urlsplit

from deploykit.daemons.notify.letters import NotifyLetter
from deploykit.daemons.notify.ports import SENT, SendOutcome
from deploykit.errors import SettingsError
from deploykit.httpclient.exchange import HttpServer, exchange
from deploykit.httpclient.reply import HttpReply, HttpRequest, NoReply
from deploykit.messages import utc_now
from deploykit.settings.notify import ChannelSettings, web_url_problems
from deploykit.settings.webhooksecrets import signing_key_of
from deploykit.system.secretfile import read_secret

#: Seconds for one request, and bytes of an answer that are looked at.
_SECONDS: Final = 15.0
_KEPT: Final = 4096
_REFUSED: Final = frozenset({400, 405, 406, 410, 413, 414, 415, 422})
#: Seconds to wait where only a person can help.
_FOR_A_PERSON: Final = 60.0
_WORD: Final = re.compile(r"[a-z][a-z0-9_]{1,60}\Z").match
_ERRCODE: Final = re.compile(r"M_[A-Z0-9_]{1,60}\Z").match

Send = Callable[[HttpServer, HttpRequest], HttpReply | NoReply]


def _exchange(server: HttpServer, request: HttpRequest) -> HttpReply | NoReply:
    return exchange(server, request, seconds=_SECONDS, kept=_KEPT)


class PostingChannel:
    """What the channels over HTTP have in common. A subclass says where a letter goes and how it looks.

    Args:
        name: of the channel.
        settings: of the channel.
        send: makes one request.
        now: the wall clock, aware UTC.

    Raises:
        SettingsError: the secret cannot be used.
    """

    def __init__(
        self,
        name: str,
        settings: ChannelSettings,
        *,
        send: Send = _exchange,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._name = name
        self._settings = settings
        self._send = send
        self._now = now
        self._servers: dict[str, HttpServer] = {}
        self._server_of(self._url(self._secret()))

    def send(self, letter: NotifyLetter) -> SendOutcome:
        """Post a letter; see `NotifyChannel.send`."""
        secret = self._secret()
        url = self._url(secret)
        request = self._request(letter, url, secret)
        return self._judge(self._send(self._server_of(url), request))

    def fileno(self) -> int:
        """Return -1: no connection stays open."""
        return -1

    def tend(self) -> None:
        """Do nothing: no connection stays open."""

    def close(self) -> None:
        """Do nothing: no connection stays open."""

    # -- what differs --------------------------------------------------------------------------------------------------

    def _url(self, secret: str) -> str:
        """Return the whole address; `secret` is it where it is one."""
        return self._settings.url

    def _request(self, letter: NotifyLetter, url: str, secret: str) -> HttpRequest:
        raise NotImplementedError

    def _detail(self, reply: HttpReply) -> str:
        """Return the server's word for what is wrong, of a known form; empty for none."""
        text = reply.body.decode("utf-8", "replace").strip()
        return text if _WORD(text) and text != self._secret() else ""

    def _pause(self, reply: HttpReply) -> float:
        return reply.retry_after(self._now()) or 0.0

    # -- shared --------------------------------------------------------------------------------------------------------

    def _secret(self) -> str:
        path = self._settings.secret_file
        if path is None:
            raise SettingsError(f"notify.channels.{self._name}.secret_file: is not set")
        return read_secret(path, f"notify.channels.{self._name}.secret_file")

    def _server_of(self, url: str) -> HttpServer:
        """Return the server of an address: the authorities are read once for each."""
        if url not in self._servers:
            self._servers = {url: HttpServer.of(url, ca_file=self._settings.ca_file, connect_timeout=10.0)}
        return self._servers[url]

    def _judge(self, reply: HttpReply | NoReply) -> SendOutcome:
        if isinstance(reply, NoReply):
            return SendOutcome(kind="later", why=f"{reply.why} ({reply.remedy})")
        if 200 <= reply.status < 300:
            return SENT
        word = self._detail(reply)
        why = f"answered {reply.status}" + (f" {word}" if word else "")
        if 300 <= reply.status < 400:
            why = f"{why}: it redirects, and no redirect is followed (set url to where it redirects to)"
            return SendOutcome(kind="later", why=why, wait=_FOR_A_PERSON)
        if reply.status in _REFUSED:
            return SendOutcome(kind="refused", why=why)
        if reply.status in (401, 403, 404):
            return SendOutcome(
                kind="later",
                why=f"{why} (check url, room and secret_file)",
                wait=max(_FOR_A_PERSON, self._pause(reply)),
            )
        return SendOutcome(kind="later", why=why, wait=self._pause(reply))


class MatrixChannel(PostingChannel):
    """A room of Matrix, by the client-server API. The server drops a letter that it has already, by its id."""

    def _request(self, letter: NotifyLetter, url: str, secret: str) -> HttpRequest:
        parts = urlsplit(url)
        room, transaction = quote(self._settings.room, safe=""), quote(letter.id, safe="")
        target = f"{parts.path.rstrip('/')}/_matrix/client/v3/rooms/{room}/send/m.room.message/{transaction}"
        content = {"msgtype": "m.notice", "body": "\n".join(letter.lines), "m.mentions": {}}
        headers = (("Authorization", f"Bearer {secret}"), ("Content-Type", "application/json"))
        return HttpRequest(method="PUT", target=target, headers=headers, body=_json(content))

    def _detail(self, reply: HttpReply) -> str:
        code = _object(reply).get("errcode")
        return code if isinstance(code, str) and _ERRCODE(code) else ""

    def _pause(self, reply: HttpReply) -> float:
        wait = _object(reply).get("retry_after_ms")
        seconds = wait / 1000 if isinstance(wait, int) and not isinstance(wait, bool) and wait > 0 else 0.0
        return max(min(seconds, 3600.0), super()._pause(reply))


class SlackChannel(PostingChannel):
    """An incoming webhook as Slack, Mattermost and others have it. Its address is the secret."""

    def _url(self, secret: str) -> str:
        problem = next(iter(web_url_problems(secret)), "")
        if problem:
            raise SettingsError(f"notify.channels.{self._name}.secret_file: the address in it: {problem}")
        return secret

    def _request(self, letter: NotifyLetter, url: str, secret: str) -> HttpRequest:
        content = {
            "text": "\n".join(letter.lines),
            "mrkdwn": False,
            "link_names": False,
            "unfurl_links": False,
            "unfurl_media": False,
        }
        return HttpRequest(
            method="POST", target=_target(url), headers=(("Content-Type", "application/json"),), body=_json(content)
        )


class WebhookChannel(PostingChannel):
    """A webhook that gets JSON, signed as Standard Webhooks describes it."""

    def _url(self, secret: str) -> str:
        try:
            signing_key_of(secret)
        except SettingsError as error:
            setting = f"notify.channels.{self._name}.secret_file"
            raise SettingsError(f"{setting}: {error.problem}", "write whsec_ and base64 of 24 to 64 bytes") from None
        return self._settings.url

    def _request(self, letter: NotifyLetter, url: str, secret: str) -> HttpRequest:
        body = _json(letter.data)
        headers = signature_headers(signing_key_of(secret), letter.id, self._now(), body)
        return HttpRequest(
            method="POST",
            target=_target(url),
            headers=(("Content-Type", self._content_type), *headers),
            body=body,
        )

    @property
    def _content_type(self) -> str:
        return "application/json"


class CdeventsChannel(WebhookChannel):
    """A receiver of CloudEvents over HTTP, structured mode, signed likewise."""

    @property
    def _content_type(self) -> str:
        return "application/cloudevents+json; charset=utf-8"


def signature_headers(key: bytes, letter_id: str, now: datetime, body: bytes) -> tuple[tuple[str, str], ...]:
    """Return the three headers of Standard Webhooks (symmetric, v1).

    Args:
        key: what `whsec_` stands for.
        letter_id: the same at each attempt.
        now: of this attempt.
    """
    seconds = str(int(now.timestamp()))
    mac = hmac.new(key, f"{letter_id}.{seconds}.".encode() + body, hashlib.sha256).digest()
    return (
        ("webhook-id", letter_id),
        ("webhook-timestamp", seconds),
        ("webhook-signature", f"v1,{base64.b64encode(mac).decode()}"),
    )


def _json(content: Mapping[str, object]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _object(reply: HttpReply) -> Mapping[str, object]:
    try:
        found = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _target(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


__all__ = ["CdeventsChannel", "MatrixChannel", "PostingChannel", "SlackChannel", "WebhookChannel", "signature_headers"]
