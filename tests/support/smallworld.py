"""A row of everything that the console shows: two sites, of which one is `vault`, two nodes, a failed rollout."""

from __future__ import annotations

from datetime import UTC, datetime

from deploykit.web.projection.activityviews import (
    AuditView,
    BuildView,
    CommitView,
    LatestChange,
    MirrorView,
    NoticeView,
    PushView,
    RefView,
)
from deploykit.web.projection.rolloutviews import HistoryView, RolloutNode, RolloutOverview, StepView
from deploykit.web.projection.views import NodeSummary, Problem, SiteLockView, SiteOnNode, SiteSummary
from tests.support.fixedqueries import FixedQueries

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
COMMIT = "c" * 40


def small_world(text: str = "x") -> FixedQueries:
    """A row of everything, with `text` wherever a text from outside can be."""
    lock = SiteLockView(site="shop", holder=text, reason=text, since=NOON, until=NOON)
    shop = SiteOnNode(
        site="shop", node="web1", repo="group/widget", standing="current", ref=text, commit=COMMIT, by=text, lock=lock
    )
    rollout = RolloutOverview(
        rollout="r-1", site="shop", ref=text, commit=COMMIT, state=text, counts={text: 1}, failed=(text,), began=NOON
    )
    step = StepView(name=text, state="failed", seconds=1.5, exit_code=1, began=NOON)
    commit = CommitView(id=COMMIT, author=text, time=text, message=text)
    return FixedQueries(
        site_list=(
            SiteSummary(site="shop", repo="group/widget", ref=text, nodes=1, counts={"current": 1}, lock=lock),
            SiteSummary(site="vault", repo="group/vault"),
        ),
        node_list=(
            NodeSummary(node="web1", seen=NOON, version="1", facts={"a": {"b": [1, text]}}, sites=(shop,)),
            NodeSummary(node="web2", silent=True),
        ),
        mirror_list=(MirrorView(node="web1", repo="group/widget", ref=text, detail=text, time=NOON),),
        ref_list=(RefView(repo="group/widget", ref=text, commit=COMMIT, holders=1, expected=2, missing=("web2",)),),
        push_list=(PushView(id="p-1", time=NOON, repo="group/widget", ref=text, commits=(commit,), commit_count=1),),
        build_list=(BuildView(id="b-1", time=NOON, repo="group/widget", url=text, state="success"),),
        rollout_list=(
            rollout,
            RolloutOverview(rollout="r-2", site="vault"),
        ),
        rollout_nodes={"r-1": (RolloutNode(node="web1", state="failure", detail=text, steps=(step,), log_lines=3),)},
        logs={("r-1", "web1"): (text, "two", "three")},
        history_list=(HistoryView(id="web1:7", site="shop", node="web1", number=7, ref=text, started=NOON),),
        notice_list=(NoticeView(id="n-1", time=NOON, source=text, text=text),),
        audit_list=(AuditView(id="a-1", time=NOON, action="deploy", decision="refused", who=text, site="shop"),),
        problem_list=(Problem(kind="rollout", text=text, since=NOON, rollout="r-1", site="shop"),),
        change_list=(LatestChange(time=NOON, what="push", text=text, by=text, repo="group/widget"),),
    )


__all__ = ["COMMIT", "NOON", "small_world"]
