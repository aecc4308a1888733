"""What is posted, and what an answer means. The requests are real in tests/integration/notify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from deploykit.daemons.notify.letters import NotifyLetter
from deploykit.daemons.notify.posting import (
    CdeventsChannel,
    MatrixChannel,
    PostingChannel,
    SlackChannel,
    WebhookChannel,
    signature_headers,
)
from deploykit.errors import SettingsError
from deploykit.httpclient.exchange import HttpServer
from deploykit.httpclient.reply import HttpReply, HttpRequest, NoReply
from deploykit.messages import utc_now
from deploykit.settings.notify import ChannelSettings
from deploykit.settings.webhooksecrets import signing_key_of
from tests.support.newsworld import NOW, secret_file

KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LETTER = NotifyLetter(id="abc123", lines=("one <b>", "two"), subject="s", time=NOW, data={"type": "x", "n": 1})


class Sent:
    """Notes requests, and answers them."""

    def __init__(self, *answers: HttpReply | NoReply) -> None:
        self.requests: list[tuple[HttpServer, HttpRequest]] = []
        self.answers = list(answers)

    def __call__(self, server: HttpServer, request: HttpRequest) -> HttpReply | NoReply:
        self.requests.append((server, request))
        return self.answers.pop(0) if self.answers else HttpReply(status=200)


def made(kind: type[PostingChannel], directory: Path, send: Sent, secret: str = KEY, **changes: Any) -> PostingChannel:
    names = {MatrixChannel: "matrix", SlackChannel: "slack", WebhookChannel: "webhook", CdeventsChannel: "cdevents"}
    values: dict[str, Any] = {"url": "" if kind is SlackChannel else "https://chat.example.org/base?k=1"}
    settings = ChannelSettings(
        kind=names[kind],  # type: ignore[arg-type]  # of the four
        secret_file=secret_file(directory, secret),
        **(values | changes),
    )
    return kind("ops", settings, send=send, now=utc_now)


def test_a_letter_to_matrix_is_plain_text_that_calls_nobody(tmp_path: Path) -> None:
    sent = Sent()
    channel = made(MatrixChannel, tmp_path, sent, "syt_token", room="!a/b:example.org", url="https://m.example.org/x/")
    assert channel.send(LETTER).kind == "sent"
    ((server, request),) = sent.requests
    assert server.host == "m.example.org"
    assert (request.method, request.target) == (
        "PUT",
        "/x/_matrix/client/v3/rooms/%21a%2Fb%3Aexample.org/send/m.room.message/abc123",
    )
    assert ("Authorization", "Bearer syt_token") in request.headers
    assert json.loads(request.body or b"") == {"msgtype": "m.notice", "body": "one <b>\ntwo", "m.mentions": {}}


def test_matrix_says_how_long_to_wait(tmp_path: Path) -> None:
    body = b'{"errcode":"M_LIMIT_EXCEEDED","error":"x","retry_after_ms":2500}'
    sent = Sent(HttpReply(status=429, body=body), HttpReply(status=429, headers=(("Retry-After", "7"),)))
    channel = made(MatrixChannel, tmp_path, sent, room="!a:b")
    first = channel.send(LETTER)
    assert (first.kind, first.wait, first.why) == ("later", 2.5, "answered 429 M_LIMIT_EXCEEDED")
    assert channel.send(LETTER).wait == 7.0


@pytest.mark.parametrize("wait", [b"true", b'"9"', b"-4", b"1e999", b"null", b"99999999999999"])
def test_a_wait_that_makes_no_sense_is_bounded(tmp_path: Path, wait: bytes) -> None:
    reply = HttpReply(status=429, body=b'{"retry_after_ms":' + wait + b"}")
    assert 0 <= made(MatrixChannel, tmp_path, Sent(reply), room="!a:b").send(LETTER).wait <= 3600


def test_slack_gets_text_without_markup_at_the_address_in_the_file(tmp_path: Path) -> None:
    sent = Sent()
    channel = made(SlackChannel, tmp_path, sent, "https://hooks.example.org/services/T0/B0/xyz?a=b")
    assert channel.send(LETTER).kind == "sent"
    ((server, request),) = sent.requests
    assert (server.host, request.target) == ("hooks.example.org", "/services/T0/B0/xyz?a=b")
    content = json.loads(request.body or b"")
    assert content["text"] == "one <b>\ntwo"
    assert not any(content[name] for name in ("mrkdwn", "link_names", "unfurl_links", "unfurl_media"))


@pytest.mark.parametrize(
    "secret", ["http://hooks.example.org/x", "hooks.example.org", "https://u:pw9@h.example.org/", "ftp://127.0.0.1/pw9"]
)
def test_an_address_that_is_not_https_is_refused_without_showing_it(tmp_path: Path, secret: str) -> None:
    with pytest.raises(SettingsError, match=r"notify.channels.ops.secret_file: the address in it: expected https") as e:
        made(SlackChannel, tmp_path, Sent(), secret)
    assert "pw9" not in str(e.value)
    assert "hooks" not in str(e.value)


def test_a_webhook_is_signed_so_that_the_standard_s_own_library_accepts_it(tmp_path: Path) -> None:
    sent = Sent()
    for kind in (WebhookChannel, CdeventsChannel):
        channel = made(kind, tmp_path, sent)
        assert channel.send(LETTER).kind == "sent"
    for _, request in sent.requests:
        headers = dict(request.headers)
        assert headers["webhook-id"] == "abc123"
        assert Webhook(KEY).verify(request.body or b"", headers) == {"type": "x", "n": 1}
        with pytest.raises(WebhookVerificationError):
            Webhook(KEY).verify((request.body or b"") + b" ", headers)
        with pytest.raises(WebhookVerificationError):
            Webhook("whsec_" + "A" * 32).verify(request.body or b"", headers)
    types = [dict(request.headers)["Content-Type"] for _, request in sent.requests]
    assert types == ["application/json", "application/cloudevents+json; charset=utf-8"]


def test_an_old_signature_is_no_good_for_a_replay() -> None:
    headers = dict(signature_headers(signing_key_of(KEY), "abc", NOW, b"{}"))
    with pytest.raises(WebhookVerificationError, match="timestamp"):
        Webhook(KEY).verify(b"{}", headers)


def test_a_key_that_signs_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="secret_file: what follows whsec_ is too short"):
        made(WebhookChannel, tmp_path, Sent(), "whsec_QUJD")


def test_a_new_secret_counts_at_once_and_one_that_others_can_read_is_refused(tmp_path: Path) -> None:
    sent = Sent()
    channel = made(MatrixChannel, tmp_path, sent, "first", room="!a:b")
    channel.send(LETTER)
    secret_file(tmp_path, "second")
    channel.send(LETTER)
    assert [dict(request.headers)["Authorization"] for _, request in sent.requests] == ["Bearer first", "Bearer second"]
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(SettingsError, match="mode 0644"):
        channel.send(LETTER)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((200, "sent"), (204, "sent"), (400, "refused"), (413, "refused"), (422, "refused")),
        *((status, "later") for status in (302, 401, 403, 404, 408, 429, 500, 503)),
    ],
)
def test_what_a_status_means(tmp_path: Path, status: int, kind: str) -> None:
    reply = HttpReply(status=status, headers=(("Location", "https://evil.example/"),))
    outcome = made(WebhookChannel, tmp_path, Sent(reply)).send(LETTER)
    assert outcome.kind == kind
    if status in (302, 401, 403, 404):
        assert outcome.wait >= 60
    if status == 302:
        assert "no redirect is followed" in outcome.why


def test_no_secret_and_nothing_that_a_server_says_at_length_gets_into_an_error(tmp_path: Path) -> None:
    url = "https://hooks.example.org/services/T0/B0/verysecret"
    for body in (url.encode(), b"verysecret " * 100, b"<html>verysecret</html>", b"\x1b[2J"):
        outcome = made(SlackChannel, tmp_path, Sent(HttpReply(status=500, body=body)), url).send(LETTER)
        assert outcome.why == "answered 500"
    outcome = made(SlackChannel, tmp_path, Sent(HttpReply(status=404, body=b"no_service")), url).send(LETTER)
    assert outcome.why.startswith("answered 404 no_service")


def test_no_answer_is_tried_again(tmp_path: Path) -> None:
    lost = NoReply(sent=True, why="https://chat.example.org closed the connection", remedy="look at it")
    outcome = made(WebhookChannel, tmp_path, Sent(lost)).send(LETTER)
    assert outcome.kind == "later"
    assert "closed the connection" in outcome.why
