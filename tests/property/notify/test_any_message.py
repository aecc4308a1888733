"""Whatever a message holds: what is sent is harmless, bounded, and can be written."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from itertools import product

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from deploykit.daemons.notify.cdevents import cdevent_of
from deploykit.daemons.notify.ircprotocol import IrcSession, parts_of
from deploykit.daemons.notify.letters import letter_of, waiting_line
from deploykit.daemons.notify.mail import mail_of
from deploykit.daemons.notify.news import NewsItem, news_of
from deploykit.daemons.notify.waiting import NotifyBatch
from deploykit.daemons.notify.wording import LONGEST, ZERO_WIDTH_SPACE
from deploykit.fleet.tracetrust import SignatureVerdict, Standing
from deploykit.messages import Message
from deploykit.settings.notify import TEMPLATE_FIELDS, ChannelKind, ChannelSettings
from deploykit.testing.strategies import messages, texts

NOW = datetime(2026, 11, 30, tzinfo=UTC)
EVERYTHING = " ".join(f"{{{name}}}" for name in TEMPLATE_FIELDS)
TYPE = re.compile(r"dev\.cdevents\.[a-z]+\.[a-z]+\.0\.3\.0|dev\.cdeventsx\.deploykit-[a-zA-Z]+\.[a-zA-Z]+\.0\.1\.0")
STANDINGS: tuple[Standing, ...] = ("verified", "unsigned", "not verified")
KINDS: tuple[ChannelKind, ...] = ("irc", "matrix", "slack", "webhook", "email", "cdevents")


def item_of(message: Message, standing: Standing, console: str = "https://c.example.org") -> NewsItem | None:
    verdict = SignatureVerdict(standing=standing, signer="ann")
    return news_of(message, verdict, body=b"x", received=message.time, console=console)


def channel(kind: ChannelKind, template: str = "") -> ChannelSettings:
    return ChannelSettings(kind=kind, template=template, sender="a@b.example", to=("c@d.example",))


@hypothesis_settings(max_examples=40)
@given(message=messages(), standing=st.sampled_from(STANDINGS))
def test_what_is_sent_of_any_message_is_harmless(message: Message, standing: Standing) -> None:
    item = item_of(message, standing)
    if item is None:
        return
    for kind, template in product(KINDS, ("", EVERYTHING, "{line}")):
        check_harmless(item, kind, template)


def check_harmless(item: NewsItem, kind: ChannelKind, template: str) -> None:
    """What a channel of a kind gets of an item calls nobody, is bounded and can be sent."""
    line = waiting_line(item, channel(kind, template), added=0.0)
    if line is None:
        return
    batch = NotifyBatch(id="1", lines=(line, line), more={"notice": 3})
    letter = letter_of(batch, kind, NOW)
    json.dumps(letter.data)
    for text in letter.lines:
        assert text.replace(ZERO_WIDTH_SPACE, "").isprintable()
        assert len(text) <= LONGEST + 400
        if kind == "slack":
            assert not set(text) & set("<>")
        if kind in ("irc", "matrix", "slack"):
            assert not re.search(r"@(?:channel|here|everyone|room)\b", text)
        for part in parts_of(text):
            assert IrcSession("n", "#c").message(part).count(b"\n") == 1
    if kind == "email":
        sent = mail_of(letter, channel(kind), host="h").as_bytes()
        assert b"\nBcc:" not in sent.partition(b"\r\n\r\n")[0]


@given(message=messages(), standing=st.sampled_from(STANDINGS))
def test_every_event_has_a_name_of_the_right_form_and_a_subject(message: Message, standing: Standing) -> None:
    item = item_of(message, standing)
    event = cdevent_of(item) if item is not None else None
    if event is None:
        return
    assert TYPE.fullmatch(str(event["type"])), event["type"]
    assert event["subject"]
    assert str(event["subject"]).isprintable()
    assert str(event["source"]).isascii()


@hypothesis_settings(max_examples=25)
@given(text=texts(), message=messages())
def test_a_template_of_the_settings_is_always_filled_in(text: str, message: Message) -> None:
    settings = channel("irc", text)
    item = item_of(message, "verified")
    if item is not None and not any(each.startswith("template") for each in settings.problems()):
        assert waiting_line(item, settings, added=0.0) is not None or item.machine_only
