"""From a delivery to a message: decoded once, rejected where it is none, other classes acknowledged."""

from __future__ import annotations

import pytest

from deploykit.bus import Delivery, Reject, Retry
from deploykit.bus import delivery as delivery_module
from deploykit.bus.listening import decoding, topics_of
from deploykit.errors import MessageError
from deploykit.messages import BY_TYPE, BuildFinished, Message, MirrorUpdated, Notice, PackagePublished, Unknown
from deploykit.messages.topics import PRESETS, TopicMap, topic_of
from deploykit.wire import Frame, encode

NOTICE = Notice(text="hello", source="git/host")
PACKAGE = PackagePublished(source="packages/host", name="tool", version="1.0", architecture="all")


def delivered(frame: Frame, destination: str = "/topic/deploykit.notice") -> Delivery:
    return Delivery(
        destination=destination,
        headers=frame.headers,
        body=frame.body,
        message_id="1",
        id="",
        attempt=1,
        redelivered=False,
        epoch=1,
    )


def test_a_delivery_has_its_message() -> None:
    assert delivered(encode(NOTICE)).message == NOTICE


def test_a_delivery_decodes_its_message_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def decode(*arguments: object) -> Message:
        calls.append(arguments)
        return NOTICE

    monkeypatch.setattr(delivery_module, "decode", decode)
    delivery = delivered(encode(NOTICE))
    seen = decoding(Notice, lambda message, delivery: Reject(str(delivery.message is message)))(delivery)
    assert isinstance(seen, Reject)
    assert seen.reason == "True"
    assert len(calls) == 1


def test_a_body_that_is_no_message_raises() -> None:
    with pytest.raises(MessageError):
        delivered(Frame({"content-type": "application/cloudevents+json"}, b"{")).message  # noqa: B018


def test_the_handler_gets_the_message_and_its_delivery() -> None:
    got: list[tuple[Message, Delivery]] = []
    delivery = delivered(encode(NOTICE))
    assert decoding(Notice, lambda *both: got.append(both))(delivery) is None
    assert got == [(NOTICE, delivery)]


def test_what_the_handler_answers_is_the_verdict() -> None:
    verdict = Retry(3)
    assert decoding(Notice, lambda _message, _delivery: verdict)(delivered(encode(NOTICE))) is verdict


def test_what_the_handler_raises_is_its_own() -> None:
    """Also a MessageError: it read another body, perhaps; the delivery itself is a message."""

    def handle(message: Notice, _: Delivery) -> None:
        raise MessageError(message.text)

    with pytest.raises(MessageError, match="hello"):
        decoding(Notice, handle)(delivered(encode(NOTICE)))


def test_what_is_no_message_is_rejected_unseen() -> None:
    verdict = decoding(Message, lambda *_: pytest.fail("seen"))(
        delivered(Frame({"content-type": "application/cloudevents+json"}, b"{"))
    )
    assert isinstance(verdict, Reject)
    assert "JSON" in verdict.reason


@pytest.mark.parametrize(
    "frame",
    [encode(PACKAGE), Frame({}, b"\n"), Frame({"content-type": "text/plain"}, b"\n")],
    ids=["other", "bare", "text"],
)
def test_messages_of_another_class_and_keepalives_are_acknowledged_unseen(frame: Frame) -> None:
    kinds = (Notice, MirrorUpdated)
    assert decoding(kinds, lambda *_: pytest.fail("seen"))(delivered(frame)) is None


def test_several_classes_are_heard_together() -> None:
    got: list[Message] = []
    handle = decoding((Notice, PackagePublished), lambda message, _: got.append(message))
    for message in (NOTICE, PACKAGE):
        handle(delivered(encode(message)))
    assert got == [NOTICE, PACKAGE]


@pytest.mark.parametrize("topics", PRESETS.values(), ids=list(PRESETS))
@pytest.mark.parametrize("kind", BY_TYPE.values(), ids=lambda kind: kind.__name__)
def test_every_class_has_a_topic(kind: type[Message], topics: TopicMap) -> None:
    assert topics_of(kind, topics)
    assert set(topics_of(kind, topics)) <= set(topics.destinations)


@pytest.mark.parametrize("topics", [*PRESETS.values(), TopicMap(build_failure="/topic/red")])
def test_a_message_goes_to_a_topic_of_its_class(topics: TopicMap) -> None:
    some = [
        NOTICE,
        PACKAGE,
        *(Notice(text="x", source=f"{kind}/host") for kind in ("git", "svn", "jenkins", "elsewhere")),
    ]
    for message in some:
        assert topic_of(message, topics) in topics_of(type(message), topics)


def test_a_build_that_ended_is_heard_wherever_it_goes() -> None:
    assert topics_of(BuildFinished, TopicMap()) == ("/topic/deploykit.build",)
    only_red = TopicMap(build_failure="/topic/red")
    assert topics_of(BuildFinished, only_red) == ("/topic/deploykit.build", "/topic/red")


@pytest.mark.parametrize("kind", [Message, Unknown])
def test_what_may_come_anywhere_is_heard_everywhere(kind: type[Message]) -> None:
    assert topics_of(kind, TopicMap()) == TopicMap().destinations


def test_topics_of_several_classes_are_named_once() -> None:
    topics = TopicMap()
    assert topics_of((Notice, PackagePublished, Notice), topics) == (topics.notice, topics.package)
