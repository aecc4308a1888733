"""Secrets that were read are taken out of texts, however a server writes them."""

from __future__ import annotations

import html
import json
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from deploykit.daemons.jenkins.client import JenkinsServer
from deploykit.daemons.jenkins.login import JenkinsLogin
from deploykit.daemons.jenkins.ports import BuildOrder
from deploykit.httpclient.reply import HttpReply
from deploykit.settings.buildservers import BuildServerSettings
from tests.support.stubjenkins import StubJenkins, StubJob

SECRET = "canary pa/ss+w<ö>rd\"'\\"


def login() -> JenkinsLogin:
    made = JenkinsLogin(BuildServerSettings(url="https://ci.example.org/"))
    made.keep_hidden(SECRET)
    return made


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower(),
        quote(SECRET),
        quote_plus(SECRET),
        html.escape(SECRET),
        "".join(c if c.isalnum() else f"&#{ord(c)};" for c in SECRET),
        "".join(c if c.isalnum() else f"&#x{ord(c):04X};" for c in SECRET),
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1].replace("/", "\\/"),
        "".join(c if c.isalnum() else f"\\u{ord(c):04X}" for c in SECRET),
    ],
)
def test_a_secret_is_hidden_in_each_form_that_a_server_may_give_it(form: str) -> None:
    assert login().hide(f"you sent {form}, twice: {form}") == "you sent ***, twice: ***"
    body = b"<p>" + b"<b>" * 1000 + b"\xff" + form.encode() + b"</p>"
    reply = login().scrub(HttpReply(status=403, headers=(("X-You", form),), body=body))
    assert isinstance(reply, HttpReply)
    assert reply.shown(reply.header("X-You")) == "***"
    assert reply.text() == "\ufffd***"


@pytest.mark.parametrize("number", [4060, 4070, 4080, 4090])
def test_no_part_of_a_secret_is_shown_where_a_text_is_cut(number: int) -> None:
    reply = login().scrub(HttpReply(status=403, body=b"<i>" + b" " * (number - 3) + SECRET.encode() + b"x" * 500))
    assert isinstance(reply, HttpReply)
    assert "canary" not in reply.text()
    assert "canary" not in reply.shown("x" * (number - 3900) + SECRET)


@pytest.mark.parametrize("secret", ["build", "queue", "item", "shop", "task", "name", "crumb", "true", "value"])
def test_a_secret_that_is_a_common_word_changes_no_decision(tmp_path: Path, secret: str) -> None:
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text(f"{secret}\n")
    with StubJenkins([StubJob(name="shop-tests", token=secret)]) as jenkins:
        jenkins.queue.hold()
        server = JenkinsServer("ci", jenkins.settings(tmp_path))
        parameters = {"DEPLOYKIT_CORRELATION_ID": "c1"}
        order = BuildOrder(server="ci", job="shop-tests", parameters=parameters, correlation_id="c1", token_file=token)
        assert server.find(order, deadline=10) is None
        assert server.start(order, deadline=10).queue_item == 1
        found = server.find(order, deadline=10)
        assert found is not None
        assert found.queue_item == 1
        assert server.follow(1, order=order, deadline=10).kind == "waiting"


def test_a_crumb_that_jenkins_gives_again_is_sent_as_it_is() -> None:
    crumb = HttpReply(status=200, body=b'{"crumb": "canary-crumb", "crumbRequestField": "Jenkins-Crumb"}')
    made = JenkinsLogin(BuildServerSettings(url="https://ci.example.org/"))
    for _ in range(2):
        assert made.crumb(lambda _: made.scrub(crumb), fresh=True) == (("Jenkins-Crumb", "canary-crumb"),)
