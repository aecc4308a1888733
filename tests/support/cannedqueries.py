"""A projection that is a few lists: what pages and the API show of it does not depend on a database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import attrs

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
from deploykit.web.projection.queries import Queries
from deploykit.web.projection.rolloutviews import (
    HistoryView,
    LogSlice,
    RolloutDetail,
    RolloutNode,
    RolloutOverview,
    StepView,
)
from deploykit.web.projection.views import (
    NodeSummary,
    Paged,
    PageRequested,
    Problem,
    ProjectionHealth,
    SiteLockView,
    SiteOnNode,
    SiteSummary,
)
from deploykit.web.viewer import Viewer

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
COMMIT = "c" * 40
_T = TypeVar("_T")


def page(items: Sequence[_T], wanted: PageRequested) -> Paged[_T]:
    """The page of a list whose cursors are positions; a cursor that is none begins anew."""
    at = int(wanted.after) if wanted.after.isascii() and wanted.after.isdigit() and len(wanted.after) < 9 else 0
    rest = items[at : at + wanted.limit]
    following = at + len(rest)
    return Paged(items=tuple(rest), next=str(following) if following < len(items) else "", total=len(items))


@attrs.define(kw_only=True)
class CannedQueries(Queries):
    """Answers from lists. `failing` is called before each answer: raise in it to be a broken database."""

    site_list: Sequence[SiteSummary] = ()
    on_nodes: Sequence[SiteOnNode] = ()
    node_list: Sequence[NodeSummary] = ()
    mirrors: Sequence[MirrorView] = ()
    ref_list: Sequence[RefView] = ()
    push_list: Sequence[PushView] = ()
    build_list: Sequence[BuildView] = ()
    rollout_list: Sequence[RolloutOverview] = ()
    rollout_nodes: Sequence[RolloutNode] = ()
    lines: Sequence[str] = ()
    operations: Sequence[HistoryView] = ()
    notice_list: Sequence[NoticeView] = ()
    audit_list: Sequence[AuditView] = ()
    problem_list: Sequence[Problem] = ()
    change_list: Sequence[LatestChange] = ()
    how: ProjectionHealth = attrs.field(factory=lambda: ProjectionHealth(connected=True, asked=NOON, answered=3))
    failing: Callable[[], None] = lambda: None

    def health(self) -> ProjectionHealth:
        self.failing()
        return self.how

    def problems(self, viewer: Viewer, limit: int = 50) -> tuple[Problem, ...]:
        return tuple(self.problem_list[:limit])

    def changes(self, viewer: Viewer, limit: int = 20) -> tuple[LatestChange, ...]:
        return tuple(self.change_list[:limit])

    def sites(self, viewer: Viewer) -> tuple[SiteSummary, ...]:
        self.failing()
        return tuple(site for site in self.site_list if viewer.sees(site.site))

    def site(self, viewer: Viewer, site: str) -> SiteSummary | None:
        return next((each for each in self.sites(viewer) if each.site == site), None)

    def site_nodes(self, viewer: Viewer, site: str, page_: PageRequested) -> Paged[SiteOnNode]:
        return page([each for each in self.on_nodes if each.site == site and viewer.sees(site)], page_)

    def nodes(self, viewer: Viewer, page_: PageRequested) -> Paged[NodeSummary]:
        return page([node for node in self.node_list if page_.search in node.node], page_)

    def node(self, viewer: Viewer, node: str) -> NodeSummary | None:
        return next((each for each in self.node_list if each.node == node), None)

    def node_mirrors(self, viewer: Viewer, node: str, page_: PageRequested) -> Paged[MirrorView]:
        return page([each for each in self.mirrors if each.node == node], page_)

    def repositories(self, viewer: Viewer) -> tuple[str, ...]:
        return tuple(sorted({ref.repo for ref in self.ref_list}))

    def refs(self, viewer: Viewer, repo: str, page_: PageRequested) -> Paged[RefView]:
        return page([ref for ref in self.ref_list if ref.repo == repo], page_)

    def pushes(self, viewer: Viewer, repo: str, page_: PageRequested) -> Paged[PushView]:
        return page([push for push in self.push_list if repo in ("", push.repo)], page_)

    def builds(self, viewer: Viewer, repo: str, page_: PageRequested) -> Paged[BuildView]:
        return page([build for build in self.build_list if repo in ("", build.repo)], page_)

    def rollouts(self, viewer: Viewer, site: str, page_: PageRequested) -> Paged[RolloutOverview]:
        seen = [each for each in self.rollout_list if viewer.sees(each.site) and site in ("", each.site)]
        return page(seen, page_)

    def rollout(self, viewer: Viewer, rollout: str, page_: PageRequested) -> RolloutDetail | None:
        for each in self.rollout_list:
            if each.rollout == rollout and viewer.sees(each.site):
                return RolloutDetail(summary=each, nodes=page(self.rollout_nodes, page_))
        return None

    def log(self, viewer: Viewer, rollout: str, node: str, first: int, limit: int) -> LogSlice | None:
        if self.rollout(viewer, rollout, PageRequested()) is None or node not in {n.node for n in self.rollout_nodes}:
            return None
        at = max(len(self.lines) + first, 0) if first < 0 else first
        return LogSlice(lines=tuple(self.lines[at : at + limit]), first=at, total=len(self.lines))

    def history(self, viewer: Viewer, site: str, node: str, page_: PageRequested) -> Paged[HistoryView]:
        seen = [each for each in self.operations if viewer.sees(each.site) and site in ("", each.site)]
        return page([each for each in seen if node in ("", each.node)], page_)

    def operation(self, viewer: Viewer, site: str, id: str) -> HistoryView | None:
        return next((each for each in self.operations if (each.site, each.id) == (site, id)), None)

    def notices(self, viewer: Viewer, page_: PageRequested) -> Paged[NoticeView]:
        return page(self.notice_list, page_)

    def audit(self, viewer: Viewer, site: str, page_: PageRequested) -> Paged[AuditView]:
        seen = [each for each in self.audit_list if viewer.sees(each.site) or viewer.sees_all]
        return page([each for each in seen if site in ("", each.site)], page_)


def small_world(text: str = "x") -> CannedQueries:
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
    return CannedQueries(
        site_list=[
            SiteSummary(site="shop", repo="group/widget", ref=text, nodes=1, counts={"current": 1}, lock=lock),
            SiteSummary(site="vault", repo="group/vault"),
        ],
        on_nodes=[shop],
        node_list=[
            NodeSummary(node="web1", seen=NOON, version="1", facts={"a": {"b": [1, text]}}, sites=(shop,)),
            NodeSummary(node="web2", silent=True),
        ],
        mirrors=[MirrorView(node="web1", repo="group/widget", ref=text, detail=text, time=NOON)],
        ref_list=[RefView(repo="group/widget", ref=text, commit=COMMIT, holders=1, expected=2, missing=("web2",))],
        push_list=[PushView(id="p-1", time=NOON, repo="group/widget", ref=text, commits=(commit,), commit_count=1)],
        build_list=[BuildView(id="b-1", time=NOON, repo="group/widget", url=text, state="success")],
        rollout_list=[rollout, RolloutOverview(rollout="r-2", site="vault")],
        rollout_nodes=[RolloutNode(node="web1", state="failure", detail=text, steps=(step,), log_lines=3)],
        lines=[text, "two", "three"],
        operations=[HistoryView(id="web1:7", site="shop", node="web1", number=7, ref=text, started=NOON)],
        notice_list=[NoticeView(id="n-1", time=NOON, source=text, text=text)],
        audit_list=[AuditView(id="a-1", time=NOON, action="deploy", decision="refused", who=text, site="shop")],
        problem_list=[Problem(kind="rollout", text=text, since=NOON, rollout="r-1", site="shop")],
        change_list=[LatestChange(time=NOON, what="push", text=text, by=text, repo="group/widget")],
    )


__all__ = ["COMMIT", "NOON", "CannedQueries", "small_world"]
