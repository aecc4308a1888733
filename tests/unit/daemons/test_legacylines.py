"""In a fleet that is half the original's, people get a line of what its daemons announced, and the line alone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.daemons.agent.reports import Reporter
from deploykit.daemons.legacylines import line_of, outgoing_lines
from deploykit.daemons.notify.news import news_of
from deploykit.fleet.tracetrust import SignatureVerdict
from deploykit.messages import (
    BY_TYPE,
    AccessReported,
    ApprovalWanted,
    DeployReported,
    LocksWanted,
    Message,
    MirrorUpdated,
    NodeDescribed,
    Notice,
    PackageReported,
)
from deploykit.messages.topics import PRESETS, TopicMap, is_for_people, topics_of_class
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.outbox import Outbox, Record
from deploykit.wire import CONTENT_TYPE, decode, encode

WEB1, SHOP = NodeName("web1"), SiteName("shop")
OLD, NEW = ObjectId("1" * 40), ObjectId("2" * 40)
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
FUTURE = PRESETS["future"]


def mirror(**changes: Any) -> MirrorUpdated:
    made = MirrorUpdated(
        source="agent/web1", node=WEB1, repo=RepoName("shop"), ref=RefName("refs/heads/main"), old=OLD, new=NEW,
        outcome="updated", seconds=0.25,
    )  # fmt: skip
    return attrs.evolve(made, **changes)


def deploy(**changes: Any) -> DeployReported:
    made = DeployReported(
        source="agent/web1", node=WEB1, site=SHOP, request="q-1", phase="deploy", outcome="success",
        ref=RefName("refs/tags/v1"), commit=NEW, live_known=True,
    )  # fmt: skip
    return attrs.evolve(made, **changes)


ACCESS = AccessReported(node=WEB1, site=SHOP, user="eve", outcome="granted", until=NOW)
PACKAGE = PackageReported(node=WEB1, name="hello", outcome="refreshed", installed="1.0", candidate="2.0")


@pytest.mark.parametrize(
    ("message", "destination", "line"),
    [
        (mirror(), "/topic/future.events.stompgit", "web1 [shop] main updated 222222222222 in 0.25 s"),
        (mirror(outcome="failed", detail="no way"), "/topic/future.events.stompgit", "web1 [shop] main failed"),
        (deploy(), "/topic/future.events.stompgit", "web1 deploy shop v1"),
        (deploy(outcome="refused", detail="locked"), "/topic/future.events.stompgit", "web1 deploy shop"),
        (ACCESS, "/topic/future.events.stageaccess", "web1 access to shop for eve granted until 2026-11-30"),
        (attrs.evolve(ACCESS, outcome="expired", until=None), "/topic/future.events.stageaccess", "web1 access"),
        (PACKAGE, "/topic/future.events.repository", "web1 package hello: 1.0 installed, 2.0 available"),
        (attrs.evolve(PACKAGE, outcome="failed", detail="no route"), "/topic/future.events.repository", "web1 package"),
    ],
)
def test_what_the_original_announced_has_a_line_on_its_topic(message: Message, destination: str, line: str) -> None:
    (outgoing,) = outgoing_lines([message], FUTURE)
    assert outgoing.destination == destination
    assert outgoing.frame.headers["subject"] == "Talking to eventbot"
    assert outgoing.frame.headers["content-type"].startswith("text/plain")
    text = outgoing.frame.body.decode()
    assert text.startswith(line)
    assert "\n" not in text


@pytest.mark.parametrize(
    "message",
    [
        mirror(outcome="unchanged"),
        attrs.evolve(ACCESS, outcome="refused"),
        NodeDescribed(node=WEB1),
        ApprovalWanted(node=WEB1, site=SHOP, rollout="r", mandate="m", request="q"),
        LocksWanted(node=WEB1),
        Notice(text="a line itself"),
    ],
)
def test_questions_descriptions_and_what_changed_nothing_have_no_line(message: Message) -> None:
    assert line_of(message) is None


def test_an_event_that_is_published_again_has_the_same_line() -> None:
    message = deploy()
    assert line_of(message) == line_of(message)
    other = line_of(deploy())
    assert other is not None
    assert other.id != line_of(message).id  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", [kind for kind in BY_TYPE.values() if kind is not Notice])
def test_no_message_of_ours_goes_to_a_topic_of_the_originals_for_people(kind: type[Message]) -> None:
    assert not [topic for topic in topics_of_class(kind, FUTURE) if is_for_people(topic)]
    assert all(is_for_people(topic) for topic in topics_of_class(Notice, FUTURE))


def queued(
    tmp_path: Path, *messages: Message, legacy: bool, topics: TopicMap = FUTURE, announced: bool = True
) -> list[Record]:
    outbox = Outbox(tmp_path / "spool")
    frames = Reporter(outbox, topics, None, legacy=legacy).report(*messages, announced=announced)
    assert len(frames) == len(messages)
    return sorted(outbox.pending(), key=lambda record: record.id)


def test_a_report_and_its_line_are_queued_in_one_step(tmp_path: Path) -> None:
    records = queued(tmp_path, mirror(), deploy(), legacy=True)
    assert [(r.destination, r.frame.headers["content-type"].partition(";")[0]) for r in records] == [
        ("/topic/future.mirror", CONTENT_TYPE),
        ("/topic/future.deploy.report", CONTENT_TYPE),
        ("/topic/future.events.stompgit", "text/plain"),
        ("/topic/future.events.stompgit", "text/plain"),
    ]
    assert len({record.of for record in records}) == 1
    assert records[0].of == 4


@pytest.mark.parametrize(("legacy", "announced"), [(False, True), (True, False)])
def test_without_legacy_and_for_what_was_answered_before_there_is_no_line(
    tmp_path: Path, legacy: bool, announced: bool
) -> None:
    records = queued(tmp_path, mirror(), legacy=legacy, announced=announced)
    assert [record.destination for record in records] == ["/topic/future.mirror"]


@pytest.mark.parametrize(
    ("legacy", "topics", "plain"),
    [(False, FUTURE, True), (True, TopicMap(), True), (False, TopicMap(), False)],
)
def test_a_daemons_own_line_is_plain_text_where_the_originals_readers_are(
    tmp_path: Path, legacy: bool, topics: TopicMap, plain: bool
) -> None:
    (record,) = queued(tmp_path, Notice(source="access/web1", text="web1 a warning"), legacy=legacy, topics=topics)
    assert record.frame.headers["content-type"].startswith("text/plain") is plain


@pytest.mark.parametrize(
    "message", [mirror(outcome="failed"), deploy(correlation_id="c-1"), attrs.evolve(ACCESS, correlation_id="c-2")]
)
def test_a_report_and_its_line_are_one_piece_of_news(message: Message) -> None:
    (outgoing,) = outgoing_lines([message], FUTURE)
    line = decode(outgoing.frame.headers, outgoing.frame.body, outgoing.destination)
    assert isinstance(line, Notice)
    verdict = SignatureVerdict(standing="unsigned")
    found = [news_of(each, verdict, body=encode(each).body, received=NOW) for each in (message, line)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].pair == found[1].pair
    assert found[0].pair[0]
