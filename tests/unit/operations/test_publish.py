"""`publish`: what a person types becomes a message, or is refused before anything is queued."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from deploykit.errors import MessageError, UsageError
from deploykit.messages import Notice
from deploykit.messages.topics import PRESETS, TopicMap
from deploykit.names import NodeName
from deploykit.operations import publish
from deploykit.outbox import Outbox
from deploykit.settings import OutboxSettings, Settings
from deploykit.trust.keyfiles import generate_key
from deploykit.wire import encode


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(node=NodeName("hub"), outbox=OutboxSettings(path=tmp_path / "spool"))


def test_a_line_of_text_is_queued_as_a_notice(settings: Settings) -> None:
    message, frame = publish.frame_of_text(settings, "freeze until Monday")
    target = publish.send(settings, message, frame, destination=None, now=False, key=None)
    (record,) = Outbox(settings.outbox.path).pending()
    assert (target, record.destination) == (settings.topics.notice, settings.topics.notice)
    assert b"freeze until Monday" in record.frame.body


@pytest.mark.parametrize(
    ("legacy", "topics", "destination", "plain"),
    [
        (True, PRESETS["future"], None, True),
        (False, PRESETS["future"], None, True),
        (False, TopicMap(), "/topic/future.events.gitolite", True),
        (True, TopicMap(), None, True),
        (True, TopicMap(), "/topic/mine", False),
        (False, TopicMap(), None, False),
    ],
)
def test_a_line_is_plain_text_where_the_originals_readers_are(
    settings: Settings, tmp_path: Path, legacy: bool, topics: TopicMap, destination: str | None, plain: bool
) -> None:
    settings = attrs.evolve(settings, legacy=legacy, topics=topics)
    message, frame = publish.frame_of_text(settings, "freeze until Monday")
    publish.send(settings, message, frame, destination=destination, now=False, key=None)
    (record,) = Outbox(settings.outbox.path).pending()
    assert (record.frame.body == b"freeze until Monday") is plain
    key = generate_key(tmp_path / "key")
    if plain:
        with pytest.raises(UsageError, match="know no signature"):
            publish.send(settings, message, frame, destination=destination, now=False, key=key)


@pytest.mark.parametrize("text", ["", "  ", "\n", "a\udcff"])
def test_nothing_to_say_is_wrong_usage(settings: Settings, text: str) -> None:
    with pytest.raises(UsageError):
        publish.frame_of_text(settings, text)


@pytest.mark.parametrize(
    "destination", ["nonsense", "topic/x", "queue:x", "/queue/", "/queue/a\\b", "/topic/" + "x" * 600]
)
def test_what_is_no_destination_is_refused_before_it_is_queued(settings: Settings, destination: str) -> None:
    message, frame = publish.frame_of_text(settings, "x")
    with pytest.raises(UsageError, match="not a destination"):
        publish.send(settings, message, frame, destination=destination, now=False, key=None)
    assert not settings.outbox.path.exists()


def test_a_whole_message_keeps_its_bytes_so_that_a_signature_stays_good(settings: Settings, tmp_path: Path) -> None:
    body = encode(Notice(source="x", text="hello")).body.replace(b'"source"', b' "source"')
    message, frame = publish.frame_of_bytes(body)
    assert frame.body == body
    publish.send(settings, message, frame, destination=None, now=False, key=generate_key(tmp_path / "k"))
    (record,) = Outbox(settings.outbox.path).pending()
    assert record.frame.body == body
    assert record.frame.headers["deploykit-signature"]


@pytest.mark.parametrize("body", [b"", b"\n", b"{", b"\xff", b'{"specversion":"1.0"}'])
def test_what_is_no_message_is_not_sent(body: bytes) -> None:
    with pytest.raises(MessageError):
        publish.frame_of_bytes(body)


def test_a_spool_that_must_not_be_made_is_not_made(settings: Settings, tmp_path: Path) -> None:
    from deploykit.errors import OutboxError

    kept = Settings(node=NodeName("hub"), outbox=OutboxSettings(path=tmp_path / "none", create=False))
    message, frame = publish.frame_of_text(kept, "x")
    with pytest.raises(OutboxError, match="none"):
        publish.send(kept, message, frame, destination=None, now=False, key=None)
