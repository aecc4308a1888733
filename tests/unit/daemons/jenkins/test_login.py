"""Secrets that were read are taken out of texts, however a server writes them."""

from __future__ import annotations

import html
import json
from urllib.parse import quote, quote_plus

import pytest

from deploykit.daemons.jenkins.login import JenkinsLogin
from deploykit.daemons.jenkins.reply import HttpReply
from deploykit.settings.jenkins import BuildServerSettings

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
    reply = login().scrub(HttpReply(status=403, headers=(("X-You", form),), body=b"<p>\xff" + form.encode()))
    assert isinstance(reply, HttpReply)
    assert reply.header("X-You") == "***"
    assert reply.body == b"<p>\xff***"


def test_bytes_that_are_no_text_stay_as_they_are() -> None:
    reply = login().scrub(HttpReply(status=200, body=b"\xff\xfe canary"))
    assert isinstance(reply, HttpReply)
    assert reply.body == b"\xff\xfe canary"
