"""The events of a batch: where to look and one line, few of them, and nothing of what scripts print."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from deploykit.messages import (
    BuildStarted,
    DeployProgressed,
    DeployRequested,
    Message,
    MirrorUpdated,
    NodeDescribed,
    Notice,
    RefUpdated,
    RolloutReported,
    SiteLocked,
    SiteState,
)
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.web.live.describe import MOST_NODES, EventDraft, describe
from deploykit.web.projection.heard import Heard

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
SHOP, WEB1, REPO = SiteName("shop"), NodeName("web1"), RepoName("shop")
REF, OLD, NEW = RefName("refs/heads/main"), ObjectId("1" * 40), ObjectId("2" * 40)


def events_of(*messages: Message) -> tuple[EventDraft, ...]:
    return describe([Heard(message=message, received=NOW) for message in messages])


def progressed(state: str, output: str = "", *, number: int = 0) -> DeployProgressed:
    return DeployProgressed(
        node=WEB1,
        site=SHOP,
        request="r1",
        rollout="rollout1",
        phase="deploy",
        number=number,
        step="post-deploy",
        state=state,  # type: ignore[arg-type]  # a word of the literal
        output=output,
    )


COMMAND = DeployRequested(
    id="command1",
    site=SHOP,
    ref=REF,
    commit=NEW,
    audience=(WEB1,),
    expires=NOW + timedelta(hours=1),
)


@pytest.mark.parametrize(
    ("message", "kind", "site", "data"),
    [
        (RefUpdated(repo=REPO, ref=REF, old=OLD, new=NEW), "push", "", {"repo": "shop"}),
        (BuildStarted(job="shop", repo=REPO), "build", "", {"repo": "shop"}),
        (
            MirrorUpdated(node=WEB1, repo=REPO, ref=REF, old=OLD, new=NEW, outcome="updated"),
            "mirror",
            "",
            {"repo": "shop", "node": "web1"},
        ),
        (COMMAND, "deploy", "shop", {"rollout": "command1"}),
        (
            RolloutReported(site=SHOP, rollout="rollout1", kind="deploy", state="failed"),
            "deploy",
            "shop",
            {"rollout": "rollout1"},
        ),
        (progressed("failed"), "step", "shop", {"node": "web1", "rollout": "rollout1"}),
        (SiteLocked(site=SHOP, serial=1, until=NOW), "lock", "shop", {}),
        (Notice(text="hello"), "notice", "", {}),
    ],
)
def test_an_event_says_where_to_look_and_one_line(
    message: Message, kind: str, site: str, data: dict[str, object]
) -> None:
    (event,) = events_of(message)
    assert (event.kind, event.site, event.time) == (kind, site, NOW)
    assert event.data == {**data, "text": message.summary}
    assert event.correlation == message.correlation_id


def test_what_a_script_prints_is_one_event_for_each_node_and_never_in_it() -> None:
    events = events_of(*(progressed("output", f"canary {number}\n", number=number) for number in range(50)))
    assert [(each.kind, each.data) for each in events] == [("log", {"node": "web1", "rollout": "rollout1"})]
    assert "canary" not in str(events)


def test_a_node_that_describes_itself_is_an_event_for_all_and_one_for_those_who_see_its_sites() -> None:
    sites = (SiteState(site=SHOP, repo=REPO), SiteState(site=SiteName("blog"), repo=REPO))
    events = events_of(NodeDescribed(node=WEB1, instance="i", sites=sites))
    assert [(each.kind, each.site, each.data) for each in events] == [
        ("node", "", {"node": "web1"}),
        ("node", "shop", {}),
        ("node", "blog", {}),
    ]


def test_a_whole_fleet_that_answers_is_two_events() -> None:
    sites = (SiteState(site=SHOP, repo=REPO),)
    nodes = [NodeDescribed(node=NodeName(f"web{at}"), instance="i", sites=sites) for at in range(MOST_NODES + 1)]
    events = events_of(*nodes)
    assert [(each.site, each.data) for each in events] == [("", {"nodes": MOST_NODES + 1}), ("shop", {})]


def test_a_long_line_is_cut() -> None:
    (event,) = events_of(Notice(text="x" * 5000))
    assert len(str(event.data["text"])) <= 300
