"""A batch as a letter: lines for people, data for programs, and what was left out in either."""

from __future__ import annotations

import json

import pytest

from deploykit.daemons.notify.letters import letter_of, waiting_line
from deploykit.daemons.notify.routing import goes_to
from deploykit.daemons.notify.waiting import NotifyBatch
from deploykit.daemons.notify.wording import LATE
from deploykit.messages import DeployReported, RefUpdated
from deploykit.names import ZERO_ID, parse_node_name, parse_repo_name
from deploykit.settings.notify import ChannelKind, ChannelSettings
from tests.support.newsworld import COMMIT, NOW, SHOP, TAG, item, notice, proposal, rollout, waiting


def channel(kind: ChannelKind = "irc", **changes: object) -> ChannelSettings:
    return ChannelSettings(kind=kind, **changes)  # type: ignore[arg-type]  # by name


def test_more_is_said_in_the_line_or_behind_the_lines() -> None:
    one = NotifyBatch(id="1", lines=(waiting("a"),), more={"notice": 3, "push": 1}, late=2)
    assert letter_of(one, "irc", NOW).lines == ("a (and 4 more: 3 notice, 1 push; 2 older could not be sent in time)",)
    two = NotifyBatch(id="1", lines=(waiting("a"), waiting("b")), more={"push": 1})
    assert letter_of(two, "email", NOW).lines == ("a", "b", "and 1 more: 1 push")
    assert letter_of(two, "email", NOW).subject == "[deploykit] a (and 2 more)"


def test_a_webhook_gets_the_fields_and_what_was_left_out() -> None:
    line = waiting_line(item(proposal(reason="a\nb")), channel("webhook", events=("approval",)), added=0.0)
    assert line is not None
    data = json.loads(json.dumps(letter_of(NotifyBatch(id="1", lines=(line,), more={"push": 2}), "webhook", NOW).data))
    assert data["type"] == "deploykit.approval"
    assert data["timestamp"] == "2026-11-30T03:00:00Z"
    assert data["more"] == {"push": 2}
    assert data["data"]["site"] == "shop"
    assert data["data"]["who"] == "bob"
    assert data["data"]["reason"] == "a b"
    assert data["data"]["standing"] == "verified"
    assert data["data"]["message_type"] == "deploykit.rollout.proposed.v1"


def test_people_are_not_told_of_each_node_that_succeeded() -> None:
    report = DeployReported(
        node=parse_node_name("web1"), site=SHOP, request="q", phase="deploy", outcome="success", time=NOW
    )
    found = item(report)
    for kind in ("irc", "matrix", "slack", "email", "webhook"):
        assert waiting_line(found, channel(kind), added=0.0) is None
    assert waiting_line(found, channel("cdevents"), added=0.0) is not None


def test_a_channel_takes_its_kinds_and_its_sites() -> None:
    failed = item(rollout("failed"))
    assert goes_to(failed, channel(events=("failure",)))
    assert goes_to(failed, channel(events=("rollout",)))
    assert not goes_to(failed, channel(events=("push",)))
    assert goes_to(failed, channel(events=("failure",), sites=("blog", "sh*")))
    assert not goes_to(failed, channel(events=("failure",), sites=("SHOP", "blog")))
    assert goes_to(item(notice("x")), channel(sites=("blog",)))  # of no site


def test_what_was_held_up_waits_as_late() -> None:
    line = waiting_line(item(rollout(), received=NOW + LATE * 2), channel(), added=0.0)
    assert line is not None
    assert line.late
    assert line.rank < waiting("x", "failure", verified=True).rank


@pytest.mark.parametrize("kind", ["webhook", "cdevents"])
def test_what_waits_is_bounded_whatever_a_push_holds(kind: ChannelKind) -> None:
    push = RefUpdated(
        repo=parse_repo_name("group/shop"),
        ref=TAG,
        old=ZERO_ID,
        new=COMMIT,
        pusher="p" * 100_000,
        time=NOW,
    )
    line = waiting_line(item(push, "unsigned"), channel(kind, events=("push",)), added=0.0)
    assert line is not None
    assert len(json.dumps(line.data)) < 10_000
