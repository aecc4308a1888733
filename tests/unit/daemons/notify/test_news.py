"""Which messages are news, of which kinds, and what a believed one links to."""

from __future__ import annotations

from datetime import timedelta

import pytest

from deploykit.daemons.notify.news import STATEMENT_AGE, kinds_of, news_of
from deploykit.fleet.tracetrust import SignatureVerdict
from deploykit.messages import (
    AccessReported,
    ApprovalWanted,
    BuildFinished,
    BuildRequested,
    BuildStarted,
    DeployProgressed,
    DeployReported,
    Message,
    MirrorUpdated,
    NodeQueried,
    PackagePublished,
    PackageReported,
    RefUpdated,
    RolloutApproved,
    SiteLocked,
    SiteUnlocked,
)
from deploykit.names import ZERO_ID, parse_node_name, parse_repo_name
from deploykit.wire import encode
from tests.support.newsworld import COMMIT, NOW, SHOP, TAG, item, notice, proposal, rollout

WEB1 = parse_node_name("web1")
REPO = parse_repo_name("shop")
PUSH = RefUpdated(repo=REPO, ref=TAG, old=ZERO_ID, new=COMMIT, pusher="ann", time=NOW)
LOCK = SiteLocked(site=SHOP, serial=1, holder="ann", reason="sale", until=NOW + timedelta(hours=2), time=NOW)


def deploy(outcome: str) -> DeployReported:
    return DeployReported(node=WEB1, site=SHOP, request="q-1", phase="deploy", outcome=outcome, time=NOW)  # type: ignore[arg-type]


def mirror(outcome: str) -> MirrorUpdated:
    return MirrorUpdated(node=WEB1, repo=REPO, ref=TAG, old=ZERO_ID, new=COMMIT, outcome=outcome, time=NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("message", "kinds"),
    [
        (notice("hello"), ("notice",)),
        (PackagePublished(name="a", version="1", architecture="all"), ("notice",)),
        (PUSH, ("push",)),
        (BuildStarted(job="j"), ("build",)),
        (BuildFinished(job="j", outcome="success"), ("build",)),
        (BuildFinished(job="j", outcome="unstable"), ("failure", "build")),
        (BuildRequested(job="j", outcome="refused"), ("failure", "build")),
        (deploy("success"), ("rollout",)),
        (deploy("refused"), ("failure", "rollout")),
        (rollout("canary"), ("rollout",)),
        (rollout("paused"), ("rollout",)),
        (rollout("paused", failed=(WEB1,)), ("failure", "rollout")),
        (rollout("rolled-back"), ("failure", "rollout")),
        (rollout("succeeded"), ("rollout",)),
        (proposal(), ("approval",)),
        (LOCK, ("lock",)),
        (SiteUnlocked(site=SHOP, serial=2), ("lock",)),
        (AccessReported(node=WEB1, site=SHOP, user="eve", outcome="granted"), ("access",)),
        (AccessReported(node=WEB1, site=SHOP, user="eve", outcome="failed"), ("failure", "access")),
        (mirror("failed"), ("failure",)),
        (PackageReported(node=WEB1, name="hello", outcome="failed", detail="ours: no route"), ("failure",)),
        (PackageReported(node=WEB1, name="hello", outcome="refreshed"), ()),
        (mirror("updated"), ()),
        (NodeQueried(expires=NOW), ()),
        (DeployProgressed(node=WEB1, site=SHOP, request="q", phase="deploy", step="export", state="began"), ()),
        (ApprovalWanted(node=WEB1, site=SHOP, rollout="r", mandate="m", request="q"), ()),
    ],
)
def test_each_message_is_of_its_kinds(message: Message, kinds: tuple[str, ...]) -> None:
    assert kinds_of(message) == kinds


def test_what_is_not_believed_is_no_news() -> None:
    doubtful = SignatureVerdict(standing="doubtful", why="not signed")
    message = rollout()
    assert news_of(message, doubtful, body=encode(message).body, received=NOW) is None


@pytest.mark.parametrize(
    "message",
    [
        LOCK,
        SiteUnlocked(site=SHOP, serial=2, time=NOW),
        RolloutApproved(site=SHOP, rollout="r", nodes=(WEB1,), not_before=NOW, not_after=NOW, time=NOW),
    ],
)
def test_an_old_statement_that_is_sent_again_is_no_news(message: Message) -> None:
    verdict = SignatureVerdict(standing="verified", signer="ann")
    body = encode(message).body
    fresh = news_of(message, verdict, body=body, received=NOW + STATEMENT_AGE)
    assert fresh is not None
    assert news_of(message, verdict, body=body, received=NOW + STATEMENT_AGE + timedelta(seconds=1)) is None


def test_fields_are_the_message_s_and_each_is_one_line() -> None:
    found = item(rollout(detail="web1\r\nfailed\x00\u202e badly", requested_by="bob")).fields
    assert found["reason"] == "web1 failed badly"
    assert (found["site"], found["ref"], found["commit"], found["rollout"], found["state"], found["who"]) == (
        "shop",
        "v1.2",
        "abababababab",
        "r-1",
        "failed",
        "bob",
    )
    assert (found["event"], found["standing"], found["signer"]) == ("failure", "verified", "ann@laptop")
    assert item(PUSH).fields["who"] == "ann"
    assert all(value.isprintable() for value in found.values())


def test_links_go_to_the_console_of_the_settings_and_ids_are_escaped() -> None:
    hostile = "../x?y#z %0a"
    assert item(proposal(), console="https://c.example.org/").fields["link"] == (
        "https://c.example.org/deploys/r-2/approve"
    )
    assert item(rollout(rollout=hostile), console="https://c.example.org").fields["link"] == (
        "https://c.example.org/deploys/..%2Fx%3Fy%23z%20%250a"
    )
    assert item(LOCK, console="https://c.example.org").fields["link"] == "https://c.example.org/sites/shop"
    assert item(notice("x"), console="https://c.example.org").fields["link"] == ""


def test_without_a_console_only_a_believed_proposal_names_its_own_address() -> None:
    own = proposal(url="https://deploy.example.org/deploys/r-2/approve")
    assert item(own).fields["link"] == "https://deploy.example.org/deploys/r-2/approve"
    assert item(own, "not verified").fields["link"] == ""
    assert item(proposal(url="javascript:alert(1)")).fields["link"] == ""
