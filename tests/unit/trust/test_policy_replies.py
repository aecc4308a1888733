"""Whose word on a request counts: threat 6, a forged reply fakes success."""

from __future__ import annotations

import hmac
from datetime import timedelta

import attrs
import pytest

from deploykit.errors import PolicyRefused
from deploykit.messages import NodeDescribed, NodeQueried, SiteRelease
from deploykit.names import ObjectId, RefName, SiteName
from deploykit.settings import GrantSettings
from deploykit.trust.policy import Reply, Request
from tests.support.asked import NOW, OPS, SECOND, SKEW, WEB1, WEB2, policy, report, request, signer


def test_threat_6_a_nodes_own_report_on_our_request_is_believed() -> None:
    policy().authorize_reply(report(), signer("web1"), request=request(), now=NOW)


def test_threat_6_a_report_signed_by_another_node_is_not() -> None:
    for name in ("web2", "ops", "web", "web11"):
        with pytest.raises(PolicyRefused, match="may not report for node web1"):
            OPS.authorize_reply(report(), signer(name), request=request(), now=NOW)


def test_threat_6_a_report_on_another_request_is_not() -> None:
    for other in ("request-2", "", "request-1 ", "\udcff"):
        with pytest.raises(PolicyRefused, match="answers another request"):
            policy().authorize_reply(report(request=other), signer("web1"), request=request(), now=NOW)


def test_threat_6_a_node_that_was_not_asked_is_not_believed() -> None:
    with pytest.raises(PolicyRefused, match="was not asked"):
        policy().authorize_reply(report(node=WEB2), signer("web2"), request=request(), now=NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"site": SiteName("blog")},
        {"phase": "prepare"},
        {"commit": ObjectId("b" * 40)},
        {"ref": RefName("refs/tags/v2")},
        {"ref": None, "commit": None},
    ],
)
def test_threat_6_success_with_something_else_is_not_success(changes: dict[str, object]) -> None:
    with pytest.raises(PolicyRefused):
        policy().authorize_reply(report(**changes), signer("web1"), request=request(), now=NOW)


@pytest.mark.parametrize("phase", ["deploy", "activate", "rollback"])
def test_success_is_believed_in_every_phase_only_of_the_ref_and_commit_that_were_asked_for(phase: str) -> None:
    asked = request(phase=phase)
    policy().authorize_reply(report(phase=phase), signer("web1"), request=asked, now=NOW)
    for changes, says in (
        ({"commit": ObjectId("b" * 40)}, "another commit than asked for: v1 bbbbbbbbbbbb, not v1 aaaaaaaaaaaa"),
        ({"ref": RefName("refs/heads/v1")}, "another ref than asked for"),
        ({"ref": None, "commit": None}, "another commit than asked for: none"),
    ):
        with pytest.raises(PolicyRefused, match=says):
            policy().authorize_reply(report(phase=phase, **changes), signer("web1"), request=asked, now=NOW)


def test_a_preparation_is_believed_for_what_was_prepared_whatever_is_live() -> None:
    asked = request(phase="prepare")
    live = {"phase": "prepare", "ref": RefName("refs/tags/v0"), "commit": ObjectId("b" * 40)}
    done = SiteRelease(release="00002-v1", ref=asked.ref, commit=asked.commit)
    policy().authorize_reply(report(**live, target=done), signer("web1"), request=asked, now=NOW)
    for target in (None, attrs.evolve(done, commit=ObjectId("b" * 40)), attrs.evolve(done, ref=None)):
        with pytest.raises(PolicyRefused, match="than asked for"):
            policy().authorize_reply(report(**live, target=target), signer("web1"), request=asked, now=NOW)
    with pytest.raises(PolicyRefused, match="than asked for"):
        policy().authorize_reply(report(phase="prepare"), signer("web1"), request=asked, now=NOW)


def test_a_failure_may_name_another_commit() -> None:
    failed = report(outcome="rolled-back", commit=ObjectId("b" * 40))
    policy().authorize_reply(failed, signer("web1"), request=request(), now=NOW)


def test_a_late_reply_is_still_a_reply() -> None:
    policy().authorize_reply(report(), signer("web1"), request=request(), now=NOW + timedelta(days=2))


def test_threat_6_a_reply_from_the_future_is_refused_to_the_second() -> None:
    policy().authorize_reply(report(time=NOW + SKEW), signer("web1"), request=request(), now=NOW)
    with pytest.raises(PolicyRefused, match="future"):
        policy().authorize_reply(report(time=NOW + SKEW + SECOND), signer("web1"), request=request(), now=NOW)


def test_a_principal_can_be_granted_to_speak_for_nodes() -> None:
    proxy = policy(
        GrantSettings(principal="gateway", types=("deploy.reported",), sites=("shop",), speaks_for=("web?", "!web2"))
    )
    proxy.authorize_reply(report(), signer("gateway"), request=request(), now=NOW)
    asked = request(audience=(WEB1, WEB2))
    with pytest.raises(PolicyRefused, match="may not report"):
        proxy.authorize_reply(report(node=WEB2), signer("gateway"), request=asked, now=NOW)
    blog = {"site": SiteName("blog")}
    with pytest.raises(PolicyRefused, match="may not report"):
        proxy.authorize_reply(report(**blog), signer("gateway"), request=request(**blog), now=NOW)


def test_threat_6_a_grant_for_commands_does_not_let_anybody_reply() -> None:
    both = policy(GrantSettings(principal="ops", types=("deploy.requested", "deploy.reported")))
    with pytest.raises(PolicyRefused, match="may not report"):
        both.authorize_reply(report(), signer("ops"), request=request(), now=NOW)
    speaker = policy(GrantSettings(principal="ops", types=("deploy.requested",), speaks_for=("*",)))
    with pytest.raises(PolicyRefused, match="may not report"):
        speaker.authorize_reply(report(), signer("ops"), request=request(), now=NOW)


def test_a_reply_is_never_taken_alone() -> None:
    anything = policy(GrantSettings(principal="web1", types=("deploy.reported",)))
    with pytest.raises(PolicyRefused, match="nothing alone"):
        anything.authorize(report(), signer("web1"), WEB1, NOW)


def test_threat_30_the_request_of_a_reply_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = hmac.compare_digest

    def spy(left: bytes, right: bytes) -> bool:
        seen.append((left, right))
        return real(left, right)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    policy().authorize_reply(report(), signer("web1"), request=request(), now=NOW)
    assert seen == [(b"request-1", b"request-1")]


# -- discovery -------------------------------------------------------------------------------------------------------


def described(**changes: object) -> NodeDescribed:
    return attrs.evolve(NodeDescribed(time=NOW, node=WEB1, request="query-1"), **changes)  # type: ignore[arg-type]


ASKED_ALL = NodeQueried(id="query-1", time=NOW)


def test_a_node_is_believed_about_itself() -> None:
    policy().authorize_reply(described(), signer("web1"), request=ASKED_ALL, now=NOW)
    policy().authorize_reply(described(node=WEB2), signer("web2"), request=ASKED_ALL, now=NOW)


@pytest.mark.parametrize(
    ("reply", "query", "says"),
    [
        (described(node=WEB2), ASKED_ALL, "may not report for node web2"),
        (described(request="query-2"), ASKED_ALL, "answers another request"),
        (described(request=None), ASKED_ALL, "answers another request"),
        (described(), attrs.evolve(ASKED_ALL, audience=(WEB2,)), "was not asked"),
        (described(request="request-1"), request(), "no answer to a DeployRequested"),
        (report(request="query-1"), ASKED_ALL, "no answer to a NodeQueried"),
    ],
)
def test_threat_6_a_description_that_does_not_fit_is_refused(reply: Reply, query: Request, says: str) -> None:
    with pytest.raises(PolicyRefused, match=says):
        policy().authorize_reply(reply, signer("web1"), request=query, now=NOW)
    with pytest.raises(PolicyRefused, match="nothing alone"):
        policy(GrantSettings(principal="web1", types=("node.described",))).authorize(reply, signer("web1"), WEB1, NOW)
