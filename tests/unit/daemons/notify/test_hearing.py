"""Only what is believed is sent, each thing once, and nothing that may hold a password is subscribed to."""

from __future__ import annotations

import logging
from pathlib import Path

import attrs
import pytest

from deploykit.bus import Delivery
from deploykit.daemons.notify.hearing import HeardBodies, NewsHearing, destinations_of_news
from deploykit.daemons.notify.service import news_trust
from deploykit.messages import Message
from deploykit.messages.topics import PRESETS, TopicMap, topic_of
from deploykit.names import NodeName
from deploykit.settings import Settings
from deploykit.settings.trust import GrantSettings, TrustSettings
from deploykit.trust.signature import SigningKey, sign
from deploykit.wire import Frame, encode
from tests.support.keys import fixed_key
from tests.support.newsworld import NOW, notice, proposal, rollout

OPERATOR = fixed_key(1)
STRANGER = fixed_key(2)


def delivery(message: Message, *keys: SigningKey) -> Delivery:
    frame = encode(message)
    for key in keys:
        frame = sign(frame, key)
    return of_frame(frame)


def of_frame(frame: Frame) -> Delivery:
    return Delivery(
        destination="/topic/x",
        headers=frame.headers,
        body=frame.body,
        message_id="1",
        id="",
        attempt=1,
        redelivered=False,
        epoch=1,
    )


@pytest.fixture
def hearing(tmp_path: Path) -> NewsHearing:
    signers = tmp_path / "allowed_signers"
    signers.write_text(f"operator {OPERATOR.public_openssh}\nstranger {STRANGER.public_openssh}\n")
    grant = GrantSettings(principal="operator", types=("deploy.requested", "rollout.run"), sites=("*",))
    settings = Settings(node=NodeName("hub"), trust=TrustSettings(allowed_signers=signers, grants=(grant,)))
    return NewsHearing(news_trust(settings), now=lambda: NOW)


def test_a_signed_message_is_taken_and_says_who_signed(hearing: NewsHearing) -> None:
    result, item = hearing.hear(delivery(rollout(), OPERATOR))
    assert result == "taken"
    assert item is not None
    assert item.verified
    assert item.fields["signer"].startswith("operator (SHA256:")


def test_what_must_be_signed_and_is_not_believed_is_counted_and_not_sent(
    hearing: NewsHearing, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    assert hearing.hear(delivery(rollout())) == ("distrusted", None)
    assert hearing.hear(delivery(proposal())) == ("distrusted", None)
    assert hearing.hear(delivery(rollout(), STRANGER)) == ("distrusted", None)
    frame = sign(encode(rollout()), OPERATOR)
    swapped = attrs.evolve(frame, body=frame.body.replace(b'"failed"', b'"paused"'))
    assert hearing.hear(of_frame(swapped)) == ("distrusted", None)
    assert caplog.text.count("not believed and not sent") == 1


def test_a_notice_needs_no_signature_and_is_marked(hearing: NewsHearing) -> None:
    result, item = hearing.hear(delivery(notice("hello")))
    assert result == "taken"
    assert item is not None
    assert item.fields["standing"] == "unsigned"


def test_without_keys_everything_counts_and_is_marked() -> None:
    _, item = NewsHearing(None).hear(delivery(rollout()))
    assert item is not None
    assert item.fields["standing"] == "not verified"


def test_a_copy_is_sent_once_and_nobody_can_spend_the_id_of_another(hearing: NewsHearing) -> None:
    genuine = delivery(rollout(), OPERATOR)
    forged = attrs.evolve(rollout("succeeded"), id=genuine.message.id if genuine.message else "")
    assert hearing.hear(delivery(forged))[0] == "distrusted"
    assert hearing.hear(genuine)[0] == "taken"
    assert hearing.hear(genuine)[0] == "repeated"


def test_bytes_that_are_no_message_and_keepalives_are_ignored(hearing: NewsHearing) -> None:
    assert hearing.hear(of_frame(Frame({"content-type": "application/cloudevents+json"}, b"{"))) == ("unreadable", None)


def test_what_was_heard_is_remembered_in_bounded_memory() -> None:
    heard = HeardBodies(most=3)
    assert [heard.first(each) for each in "abcabcd"] == [True, True, True, False, False, False, True]
    assert heard.first("a")


@pytest.mark.parametrize("topics", PRESETS.values())
def test_all_news_is_subscribed_to_and_requests_for_access_are_not(topics: TopicMap) -> None:
    found = destinations_of_news(topics)
    assert topics.access not in found
    for message in (notice("x"), notice("x", source="web1"), rollout(), proposal()):
        assert topic_of(message, topics) in found
    assert not {topics.node, topics.inventory, topics.progress} & set(found)
    assert len(set(found)) == len(found)


def test_a_flood_of_unsigned_messages_makes_no_verified_one_new_again() -> None:
    heard = HeardBodies(most=3)
    assert heard.first("failure", verified=True)
    assert all(heard.first(f"forged {number}") for number in range(10))
    assert not heard.first("failure", verified=True)
    assert not heard.first("failure"), "its unsigned copy is nothing new either"


def test_an_unsigned_copy_does_not_hide_the_signed_message() -> None:
    heard = HeardBodies()
    assert heard.first("a")
    assert heard.first("a", verified=True)
