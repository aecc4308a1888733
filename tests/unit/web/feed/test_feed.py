"""From deliveries to a projection: what is kept, what is not believed, what becomes of it when the database is away."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from deploykit.bus import Ack, Delivery
from deploykit.daemons.notify.hearing import NewsHearing
from deploykit.errors import KeyFileError, ProjectionError
from deploykit.fleet.recordformat import RecordedMessage
from deploykit.fleet.tracetrust import TraceTrust, judge
from deploykit.messages import (
    AccessRevokeRequested,
    DeployRequested,
    Message,
    NodeDescribed,
    NodeQueried,
    Notice,
    PackageReported,
    RefUpdated,
    RolloutApproved,
)
from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.settings.trust import GrantSettings, TrustSettings
from deploykit.trust.keyfiles import generate_key, load_signer, trust
from deploykit.trust.policy import Policy
from deploykit.trust.signature import sign
from deploykit.trust.trustreader import TrustReader
from deploykit.web.feed import ConsoleFeed, FeedPorts, destinations_of
from deploykit.web.feedhealth import FeedHealth
from deploykit.web.live.describe import EventDraft
from deploykit.web.projection.heard import Heard
from deploykit.wire import Frame, encode

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
NEVER = threading.Event()


class Books:
    """A store that keeps what it is given in a list, and fails as often as a test wants."""

    def __init__(self) -> None:
        self.began_empty = False
        self.kept: list[Heard] = []
        self.failures = 0
        self.lost_at_next = False
        self.settled = 0

    def settle(self) -> None:
        self.settled += 1

    def apply(self, batch: Sequence[Heard]) -> None:
        if self.failures:
            self.failures -= 1
            raise ProjectionError("the console's database cannot be used: no disk")
        if self.lost_at_next:
            self.lost_at_next, self.began_empty = False, True
        self.kept += batch


@attrs.define
class World:
    """A feed over books, and what it called."""

    books: Books = attrs.Factory(Books)
    health: FeedHealth = attrs.Factory(lambda: FeedHealth(lambda: NOW))
    announced: list[EventDraft] = attrs.Factory(list)
    kept_when_announced: list[int] = attrs.Factory(list)
    rebuilds: list[str] = attrs.Factory(list)
    counts: dict[str, int] = attrs.Factory(dict)
    trust: TraceTrust | None = None

    def feed(self, *, waiting: int = 1000) -> ConsoleFeed:
        def announce(events: Sequence[EventDraft]) -> None:
            self.kept_when_announced.append(len(self.books.kept))
            self.announced += events

        def count(result: str, number: int) -> None:
            self.counts[result] = self.counts.get(result, 0) + number

        ports = FeedPorts(announce=announce, rebuild=self.rebuilds.append, count=count)
        return ConsoleFeed(self.books, self.trust, self.health, ports, now=lambda: NOW, waiting=waiting)


@pytest.fixture
def world() -> World:
    return World()


def delivery(message: Message | Frame, destination: str = "/topic/x") -> Delivery:
    frame = message if isinstance(message, Frame) else encode(message)
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


def push(ref: str = "main") -> RefUpdated:
    return RefUpdated(
        repo=RepoName("shop"), ref=RefName(f"refs/heads/{ref}"), old=ObjectId("1" * 40), new=ObjectId("2" * 40)
    )


def test_what_comes_is_kept_in_order_and_announced_after_that(world: World) -> None:
    feed = world.feed()
    messages = [push("a"), push("b"), push("c")]
    for message in messages:
        assert isinstance(feed.hear(delivery(message)), Ack)
    assert feed.step(NEVER)
    assert [each.message for each in world.books.kept] == messages
    assert [each.received for each in world.books.kept] == [NOW] * 3
    assert [event.kind for event in world.announced] == ["push"] * 3
    assert world.kept_when_announced == [3]
    assert world.counts == {"kept": 3}


def test_while_nothing_comes_what_changed_is_compared(world: World) -> None:
    feed = world.feed()
    assert feed.step(NEVER)
    assert world.books.settled == 1


def test_what_is_no_message_is_counted_and_holds_up_nothing(world: World) -> None:
    feed = world.feed()
    feed.hear(delivery(Frame({"content-type": "application/cloudevents+json"}, b"{not json")))
    feed.hear(delivery(push()))
    feed.step(NEVER)
    assert len(world.books.kept) == 1
    assert world.counts == {"unreadable": 1, "kept": 1}


@pytest.mark.parametrize(
    "message",
    [
        AccessRevokeRequested(site=SiteName("shop"), user="anna"),
        NodeQueried(source="operator/x"),
    ],
    ids=["access", "question"],
)
def test_questions_and_requests_for_access_are_not_kept(world: World, message: Message) -> None:
    feed = world.feed()
    feed.hear(delivery(message))
    feed.step(NEVER)
    assert not world.books.kept
    assert not world.announced


def test_the_topic_of_access_is_not_subscribed_to() -> None:
    topics = TopicMap()
    assert topics.access not in destinations_of(topics)
    assert {*destinations_of(topics), topics.access} == set(topics.destinations)


def test_while_the_database_is_away_the_same_batch_is_tried_again(world: World) -> None:
    world.books.failures = 1
    feed = world.feed()
    message = push()
    feed.hear(delivery(message))
    assert feed.step(NEVER)
    assert [each.message for each in world.books.kept] == [message]
    assert world.health.cannot_keep == ""


def test_the_end_does_not_wait_for_a_database_that_is_away(world: World) -> None:
    world.books.failures = 1000
    ending = threading.Event()
    feed = world.feed()
    feed.hear(delivery(push()))
    thread = threading.Thread(target=feed.run, args=(ending,))
    thread.start()
    ending.set()
    thread.join(10)
    assert not thread.is_alive()
    assert "no disk" in world.health.cannot_keep
    assert not world.announced


def test_a_database_that_was_lost_is_rebuilt_from_the_nodes(world: World) -> None:
    world.health.connected()
    world.health.asked(NOW, 3)
    world.books.lost_at_next = True
    feed = world.feed()
    feed.hear(delivery(push()))
    feed.step(NEVER)
    assert world.rebuilds == ["the database was lost"]
    assert world.health.shown.rebuilding
    assert not world.books.began_empty


def test_what_comes_too_fast_is_dropped_counted_and_asked_for_again(world: World) -> None:
    feed = world.feed(waiting=2)
    for number in range(5):
        feed.hear(delivery(push(str(number))))
    feed.step(NEVER)
    assert len(world.books.kept) == 2
    assert world.health.shown.dropped == 3
    assert world.counts == {"dropped": 3, "kept": 2}
    assert world.rebuilds == ["messages came faster than they could be kept"]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A directory with keys of web1 and of a stranger; web1's is trusted."""
    trust(tmp_path / "allowed_signers", "web1", generate_key(tmp_path / "web1.key").public_blob)
    generate_key(tmp_path / "stranger.key")
    return tmp_path


def trusting(keys: Path) -> TraceTrust:
    settings = TrustSettings(allowed_signers=keys / "allowed_signers")
    return TraceTrust(trusted=TrustReader(settings), policy=Policy.from_settings(settings, repos=None))


def described(node: str = "web1") -> Frame:
    return encode(NodeDescribed(node=NodeName(node), instance="run-1", host=node, time=NOW))


def test_a_description_counts_where_the_node_itself_signed_it(world: World, keys: Path) -> None:
    world.trust = trusting(keys)
    feed = world.feed()
    feed.hear(delivery(sign(described(), load_signer(keys / "web1.key"))))
    feed.step(NEVER)
    assert [each.message.TYPE for each in world.books.kept] == [NodeDescribed.TYPE]
    assert "web1" in world.books.kept[0].signer
    assert not world.books.kept[0].forgeable


@pytest.mark.parametrize(("node", "by"), [("web1", None), ("web1", "stranger"), ("web2", "web1")])
def test_a_description_that_is_not_believed_is_counted_and_not_shown(
    world: World, keys: Path, node: str, by: str | None
) -> None:
    world.trust = trusting(keys)
    feed = world.feed()
    frame = described(node)
    feed.hear(delivery(frame if by is None else sign(frame, load_signer(keys / f"{by}.key"))))
    feed.step(NEVER)
    assert not world.books.kept
    assert not world.announced
    assert world.health.shown.distrusted == 1
    assert "node.described" in world.health.shown.distrust


@pytest.mark.parametrize(
    ("node", "by", "believed"),
    [("web1", "web1", True), ("web1", None, False), ("web1", "stranger", False), ("web2", "web1", False)],
)
def test_a_report_on_a_package_is_believed_if_its_node_signed_it_in_console_trace_and_news(
    world: World, keys: Path, node: str, by: str | None, believed: bool
) -> None:
    world.trust = trusting(keys)
    report = PackageReported(node=NodeName(node), name="hello", outcome="failed", time=NOW)
    frame = encode(report) if by is None else sign(encode(report), load_signer(keys / f"{by}.key"))
    feed = world.feed()
    feed.hear(delivery(frame))
    feed.step(NEVER)
    assert [each.message for each in world.books.kept] == [report] * believed
    assert world.announced == [], "the console shows no packages"
    record = RecordedMessage(received=NOW, destination="/topic/x", headers=frame.headers, body=frame.body)
    assert judge(record, report, world.trust).standing == ("verified" if believed else "doubtful")
    result, news = NewsHearing(world.trust, now=lambda: NOW).hear(delivery(frame))
    assert (result, news is not None) == (("taken", True) if believed else ("distrusted", False))


@pytest.mark.parametrize(
    ("site", "by", "believed"), [("shop", "ann", True), ("docs", "ann", False), ("shop", "web1", False)]
)
def test_an_approval_counts_where_its_signer_may_approve(
    world: World, keys: Path, site: str, by: str, believed: bool
) -> None:
    trust(keys / "allowed_signers", "ann", generate_key(keys / "ann.key").public_blob)
    may = GrantSettings(principal="ann", types=("rollout.approved",), sites=("shop",))
    settings = TrustSettings(allowed_signers=keys / "allowed_signers", grants=(may,))
    world.trust = TraceTrust(trusted=TrustReader(settings), policy=Policy.from_settings(settings, repos=None))
    approved = RolloutApproved(
        time=NOW,
        site=SiteName(site),
        rollout="r",
        ref=RefName("refs/tags/v1"),
        commit=ObjectId("1" * 40),
        nodes=(NodeName("web1"),),
        phases=("deploy",),
        not_before=NOW,
        not_after=NOW,
    )
    feed = world.feed()
    feed.hear(delivery(sign(encode(approved), load_signer(keys / f"{by}.key"))))
    feed.step(NEVER)
    assert bool(world.books.kept) == believed
    assert world.health.shown.distrusted == (0 if believed else 1)


@pytest.mark.parametrize(
    ("rollout", "site", "by", "believed"),
    [("r", "shop", "desk", True), (None, "shop", "desk", False), ("r", "docs", "desk", False)],
)
def test_a_command_that_nodes_refuse_is_of_its_rollout_where_its_signer_may_run_that(
    world: World, keys: Path, rollout: str | None, site: str, by: str, believed: bool
) -> None:
    trust(keys / "allowed_signers", "desk", generate_key(keys / "desk.key").public_blob)
    may = GrantSettings(principal="desk", types=("rollout.run",), sites=("shop",))
    settings = TrustSettings(allowed_signers=keys / "allowed_signers", grants=(may,))
    world.trust = TraceTrust(trusted=TrustReader(settings), policy=Policy.from_settings(settings, repos=None))
    command = DeployRequested(
        time=NOW,
        site=SiteName(site),
        ref=RefName("refs/tags/v1"),
        commit=ObjectId("ab" * 20),
        phase="prepare",
        audience=(NodeName("web1"),),
        rollout=rollout,
        expires=NOW + timedelta(minutes=5),
    )
    feed = world.feed()
    feed.hear(delivery(sign(encode(command), load_signer(keys / f"{by}.key"))))
    feed.step(NEVER)
    assert [each.message for each in world.books.kept] == ([command] if believed else [])


def test_a_push_needs_no_signature(world: World, keys: Path) -> None:
    world.trust = trusting(keys)
    feed = world.feed()
    feed.hear(delivery(push()))
    feed.step(NEVER)
    assert len(world.books.kept) == 1
    assert world.books.kept[0].forgeable


def test_while_the_trusted_keys_cannot_be_read_nothing_signed_is_shown(world: World, keys: Path) -> None:
    def unreadable() -> object:
        raise KeyFileError("allowed_signers: permission denied")

    good = trusting(keys)
    world.trust = TraceTrust(trusted=unreadable, policy=good.policy)  # type: ignore[arg-type]  # it never returns
    feed = world.feed()
    feed.hear(delivery(sign(described(), load_signer(keys / "web1.key"))))
    feed.hear(delivery(Notice(text="hello")))
    feed.step(NEVER)
    assert [each.message.TYPE for each in world.books.kept] == [Notice.TYPE]
    assert "permission denied" in world.health.shown.distrust


def test_without_keys_everything_is_shown_as_it_came(world: World) -> None:
    feed = world.feed()
    feed.hear(delivery(described()))
    feed.step(NEVER)
    assert len(world.books.kept) == 1
    assert world.books.kept[0].signer == ""
