"""CDEvents: names, subjects and contents as the specification 0.5.1 has them, for every message that is news."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from deploykit.daemons.notify.cdevents import cdevent_of
from deploykit.daemons.notify.letters import letter_of, waiting_line
from deploykit.daemons.notify.waiting import NotifyBatch
from deploykit.messages import (
    AccessReported,
    BuildFinished,
    BuildRequested,
    BuildStarted,
    DeployReported,
    Message,
    MirrorUpdated,
    PackagePublished,
    PackageReported,
    RefUpdated,
    RevisionCommitted,
    RolloutAbort,
    RolloutApproved,
    SiteLocked,
    SiteRelease,
    SiteUnlocked,
)
from deploykit.names import ZERO_ID, parse_node_name, parse_ref_name, parse_repo_name
from deploykit.settings.notify import ChannelSettings
from tests.support.newsworld import COMMIT, NOW, SHOP, TAG, item, notice, proposal, rollout

WEB1 = parse_node_name("web1")
REPO = parse_repo_name("group/shop")
MAIN = parse_ref_name("refs/heads/main")
OLD = SiteRelease(release="0001", ref=TAG, commit=COMMIT)
CUSTOM = re.compile(r"dev\.cdeventsx\.[a-zA-Z0-9]+-[a-zA-Z]+\.[a-zA-Z]+\.[0-9]\.[0-9]\.[0-9]\Z")
#: Standard type -> fields that its content must have, and those that it may have.
CONTENT: dict[str, tuple[set[str], set[str]]] = {
    "branch.created": (set(), {"repository"}),
    "branch.deleted": (set(), {"repository"}),
    "build.queued": (set(), set()),
    "build.started": (set(), set()),
    "build.finished": (set(), {"artifactId"}),
    "artifact.published": (set(), {"sbom", "user"}),
    "pipelinerun.started": ({"pipelineName", "uri"}, set()),
    "pipelinerun.finished": (set(), {"pipelineName", "uri", "outcome", "errors"}),
    "service.deployed": ({"environment", "artifactId"}, set()),
    "service.upgraded": ({"environment", "artifactId"}, set()),
    "service.rolledback": ({"environment", "artifactId"}, set()),
}


def push(ref: str, old: str = ZERO_ID, new: str = COMMIT) -> RefUpdated:
    return RefUpdated(repo=REPO, ref=parse_ref_name(ref), old=old, new=new, pusher="ann", time=NOW)  # type: ignore[arg-type]


def deploy(**changes: Any) -> DeployReported:
    values: dict[str, Any] = {"phase": "deploy", "outcome": "success", "ref": TAG, "commit": COMMIT, "live_known": True}
    return DeployReported(node=WEB1, site=SHOP, request="q", time=NOW, **(values | changes))


CASES: list[tuple[Message, str]] = [
    (push(MAIN), "dev.cdevents.branch.created.0.3.0"),
    (push(MAIN, COMMIT, ZERO_ID), "dev.cdevents.branch.deleted.0.3.0"),
    (push(MAIN, "cd" * 20), "dev.cdeventsx.deploykit-push.received.0.1.0"),
    (push(TAG), "dev.cdeventsx.deploykit-tag.created.0.1.0"),
    (RevisionCommitted(repo=REPO, revision=7, author="ann"), "dev.cdeventsx.deploykit-push.received.0.1.0"),
    (BuildRequested(job="a/b"), "dev.cdevents.build.queued.0.3.0"),
    (BuildRequested(job="a", outcome="refused"), "dev.cdeventsx.deploykit-buildrequest.refused.0.1.0"),
    (BuildStarted(job="a", number=3), "dev.cdevents.build.started.0.3.0"),
    (BuildFinished(job="a", number=3, outcome="failure"), "dev.cdevents.build.finished.0.3.0"),
    (PackagePublished(name="shop", version="1:2~x", architecture="all"), "dev.cdevents.artifact.published.0.3.0"),
    (rollout("planned"), "dev.cdevents.pipelinerun.started.0.3.0"),
    (rollout("rolling-back"), "dev.cdeventsx.deploykit-rollout.rollingback.0.1.0"),
    (rollout("succeeded"), "dev.cdevents.pipelinerun.finished.0.3.0"),
    (rollout("aborted"), "dev.cdevents.pipelinerun.finished.0.3.0"),
    (rollout("failed", detail="no disk"), "dev.cdevents.pipelinerun.finished.0.3.0"),
    (proposal(), "dev.cdeventsx.deploykit-approval.wanted.0.1.0"),
    (proposal(withdrawn=True), "dev.cdeventsx.deploykit-approval.withdrawn.0.1.0"),
    (
        RolloutApproved(site=SHOP, rollout="r", nodes=(WEB1,), not_before=NOW, not_after=NOW, time=NOW),
        "dev.cdeventsx.deploykit-approval.given.0.1.0",
    ),
    (RolloutAbort(site=SHOP, rollout="r", expires=NOW), "dev.cdeventsx.deploykit-rollout.abort.0.1.0"),
    (deploy(), "dev.cdevents.service.deployed.0.3.0"),
    (deploy(previous=OLD), "dev.cdevents.service.upgraded.0.3.0"),
    (deploy(phase="rollback", previous=OLD), "dev.cdevents.service.rolledback.0.3.0"),
    (deploy(phase="prepare"), "dev.cdeventsx.deploykit-deploy.success.0.1.0"),
    (deploy(outcome="rolled-back"), "dev.cdeventsx.deploykit-deploy.rolledback.0.1.0"),
    (
        SiteLocked(site=SHOP, serial=1, until=NOW + timedelta(hours=1), time=NOW),
        "dev.cdeventsx.deploykit-site.locked.0.1.0",
    ),
    (SiteUnlocked(site=SHOP, serial=2, time=NOW), "dev.cdeventsx.deploykit-site.unlocked.0.1.0"),
    (
        AccessReported(node=WEB1, site=SHOP, user="eve", outcome="granted"),
        "dev.cdeventsx.deploykit-access.granted.0.1.0",
    ),
    (
        PackageReported(node=WEB1, name="hello", outcome="failed", detail="ours: no route"),
        "dev.cdeventsx.deploykit-package.failed.0.1.0",
    ),
    (
        MirrorUpdated(node=WEB1, repo=REPO, ref=TAG, old=ZERO_ID, new=COMMIT, outcome="failed"),
        "dev.cdeventsx.deploykit-mirror.failed.0.1.0",
    ),
]


def problems(event: Mapping[str, Any]) -> list[str]:
    """What the specification does not allow in an event: attributes, the three parts, fields of known contents."""
    found = []
    data = event["data"]
    context, subject = data["context"], data["subject"]
    for ours, theirs in (("id", "id"), ("source", "source"), ("type", "type"), ("time", "timestamp")):
        if event[ours] != context[theirs]:
            found.append(f"{ours} differs")
    if event["subject"] != subject["id"] or not subject["id"]:
        found.append("subject")
    if set(data) - {"context", "subject", "customData", "customDataContentType"}:
        found.append("a part that is none")
    if set(context) - {"specversion", "id", "source", "type", "timestamp", "chainId", "links", "schemaUri"}:
        found.append("context")
    if set(subject) - {"id", "source", "content"}:
        found.append("a field of the subject")
    if not re.fullmatch(r"[A-Za-z0-9/:@.~_%-]+", context["source"]):
        found.append("source is no URI reference")
    kind = re.fullmatch(r"dev\.cdevents\.([a-z.]+)\.0\.3\.0", context["type"])
    if kind is None:
        return found if CUSTOM.match(context["type"]) else [*found, "type"]
    must, may = CONTENT[kind[1]]
    if not must <= set(subject["content"]) <= must | may:
        found.append(f"content {subject['content']}")
    return found


@pytest.mark.parametrize(("message", "kind"), CASES, ids=[kind[4:] for _, kind in CASES])
def test_every_message_that_is_news_has_its_event(message: Message, kind: str) -> None:
    event = cdevent_of(item(message))
    assert event is not None
    assert event["type"] == kind
    assert event["specversion"] == "1.0"
    assert problems(event) == []


def test_lines_for_people_are_no_events() -> None:
    assert cdevent_of(item(notice("hello"))) is None


def test_outcomes_of_a_rollout() -> None:
    def content(message: Message) -> Mapping[str, Any]:
        event = cdevent_of(item(message, console="https://c.example.org"))
        assert event is not None
        found: Mapping[str, Any] = event["data"]["subject"]["content"]  # type: ignore[index]
        return found

    assert content(rollout("succeeded")) == {
        "pipelineName": "deploy shop",
        "uri": "https://c.example.org/deploys/r-1",
        "outcome": "success",
    }
    assert content(rollout("failed", detail="no disk"))["errors"] == "no disk"
    assert content(rollout("aborted"))["outcome"] == "cancel"


def test_what_the_schema_has_no_place_for_is_custom_data_and_so_is_what_was_left_out() -> None:
    settings = ChannelSettings(kind="cdevents", events=("failure",))
    line = waiting_line(item(BuildFinished(job="a", outcome="failure", time=NOW), "unsigned"), settings, added=0.0)
    assert line is not None
    letter = letter_of(NotifyBatch(id="1", lines=(line,), more={"build": 4}), "cdevents", NOW)
    custom = letter.data["data"]["customData"]  # type: ignore[index]
    assert custom["state"] == "failure"
    assert custom["standing"] == "unsigned"
    assert custom["more"] == {"build": 4}
    assert problems(letter.data) == []


def test_the_check_of_these_tests_finds_what_is_wrong() -> None:
    event = cdevent_of(item(deploy()))
    assert event is not None
    data: dict[str, Any] = dict(event["data"])  # type: ignore[call-overload]
    worse = {**event, "data": {**data, "subject": {**data["subject"], "content": {"environment": {"id": "x"}}}}}
    assert problems(worse) == ["content {'environment': {'id': 'x'}}"]
    assert problems({**event, "time": "2020-01-01T00:00:00Z"}) == ["time differs"]
