"""A projection that answers from plain lists: for pages and the API, where a test needs a state at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import attrs

from deploykit.web.projection.accessqueries import NodeAccess
from deploykit.web.projection.activityviews import (
    AuditView,
    BuildView,
    LatestChange,
    MirrorView,
    NoticeView,
    PushView,
    RefView,
)
from deploykit.web.projection.queries import Queries
from deploykit.web.projection.rolloutviews import HistoryView, LogSlice, RolloutDetail, RolloutNode, RolloutOverview
from deploykit.web.projection.views import (
    NodeSummary,
    Paged,
    PageRequested,
    Problem,
    ProjectionHealth,
    SiteOnNode,
    SiteSummary,
)
from deploykit.web.viewer import Viewer

T = TypeVar("T")


def one_page(items: Sequence[T], asked: PageRequested, name: Callable[[T], str], *, counted: bool = False) -> Paged[T]:
    """Return one page of a list; `after` is a number of the first item."""
    found = [one for one in items if asked.search.lower() in name(one).lower()]
    first = int(asked.after) if asked.after.isascii() and asked.after.isdigit() else 0
    shown = tuple(found[first : first + asked.limit])
    more = first + asked.limit < len(found)
    return Paged(items=shown, next=str(first + asked.limit) if more else "", total=len(found) if counted else None)


@attrs.define(kw_only=True)
class FixedQueries(Queries):
    """Answers from what a test puts in; filtered by viewer as the real one is."""

    health_now: ProjectionHealth = attrs.field(factory=lambda: ProjectionHealth(connected=True))
    problem_list: tuple[Problem, ...] = ()
    change_list: tuple[LatestChange, ...] = ()
    site_list: tuple[SiteSummary, ...] = ()
    node_list: tuple[NodeSummary, ...] = ()
    mirror_list: tuple[MirrorView, ...] = ()
    ref_list: tuple[RefView, ...] = ()
    push_list: tuple[PushView, ...] = ()
    build_list: tuple[BuildView, ...] = ()
    rollout_list: tuple[RolloutOverview, ...] = ()
    rollout_nodes: Mapping[str, tuple[RolloutNode, ...]] = attrs.Factory(dict)
    logs: Mapping[tuple[str, str], tuple[str, ...]] = attrs.Factory(dict)
    history_list: tuple[HistoryView, ...] = ()
    protected_sites: Mapping[str, tuple[str, ...]] = attrs.Factory(dict)
    access_list: tuple[NodeAccess, ...] = ()
    notice_list: tuple[NoticeView, ...] = ()
    audit_list: tuple[AuditView, ...] = ()
    error: Exception | None = None

    def health(self, viewer: Viewer) -> ProjectionHealth:
        if self.error:
            raise self.error
        return self.health_now

    def problems(self, viewer: Viewer, limit: int = 50) -> tuple[Problem, ...]:
        return tuple(p for p in self.problem_list if viewer.sees(p.site) or viewer.sees_all)[:limit]

    def changes(self, viewer: Viewer, limit: int = 20) -> tuple[LatestChange, ...]:
        return tuple(c for c in self.change_list if viewer.sees(c.site) or viewer.sees_all)[:limit]

    def sites(self, viewer: Viewer) -> tuple[SiteSummary, ...]:
        if self.error:
            raise self.error
        return tuple(one for one in self.site_list if viewer.sees(one.site))

    def site(self, viewer: Viewer, site: str) -> SiteSummary | None:
        return next((one for one in self.sites(viewer) if one.site == site), None)

    def site_nodes(self, viewer: Viewer, site: str, page: PageRequested) -> Paged[SiteOnNode]:
        found = [one for node in self.node_list for one in node.sites if one.site == site and viewer.sees(site)]
        found.sort(key=lambda one: (one.standing == "current", one.node))
        return one_page(found, page, lambda one: one.node, counted=True)

    def nodes(self, viewer: Viewer, page: PageRequested) -> Paged[NodeSummary]:
        return one_page([self._seen(one, viewer) for one in self.node_list], page, lambda one: one.node, counted=True)

    def node(self, viewer: Viewer, node: str) -> NodeSummary | None:
        return next((self._seen(one, viewer) for one in self.node_list if one.node == node), None)

    @staticmethod
    def _seen(node: NodeSummary, viewer: Viewer) -> NodeSummary:
        return attrs.evolve(node, sites=tuple(one for one in node.sites if viewer.sees(one.site)))

    def node_mirrors(self, viewer: Viewer, node: str, page: PageRequested) -> Paged[MirrorView]:
        repos = {one.repo for one in self.sites(viewer)}
        found = [one for one in self.mirror_list if one.node == node and (viewer.sees_all or one.repo in repos)]
        return one_page(found, page, lambda one: one.repo)

    def repositories(self, viewer: Viewer) -> tuple[str, ...]:
        return tuple(sorted({one.repo for one in self.ref_list} | {one.repo for one in self.site_list if one.repo}))

    def refs(self, viewer: Viewer, repo: str, page: PageRequested) -> Paged[RefView]:
        return one_page([one for one in self.ref_list if one.repo == repo], page, lambda one: one.ref)

    def pushes(self, viewer: Viewer, repo: str, page: PageRequested) -> Paged[PushView]:
        return one_page([one for one in self.push_list if repo in ("", one.repo)], page, lambda one: one.repo + one.ref)

    def builds(self, viewer: Viewer, repo: str, page: PageRequested) -> Paged[BuildView]:
        return one_page(
            [one for one in self.build_list if repo in ("", one.repo)], page, lambda one: one.repo + one.ref
        )

    def rollouts(self, viewer: Viewer, site: str, page: PageRequested) -> Paged[RolloutOverview]:
        found = [one for one in self.rollout_list if site in ("", one.site) and viewer.sees(one.site)]
        return one_page(found, page, lambda one: one.site + one.ref)

    def rollout(self, viewer: Viewer, rollout: str, page: PageRequested) -> RolloutDetail | None:
        for one in self.rollout_list:
            if one.rollout == rollout and viewer.sees(one.site):
                nodes = self.rollout_nodes.get(rollout, ())
                return RolloutDetail(summary=one, nodes=one_page(nodes, page, lambda node: node.node, counted=True))
        return None

    def log(self, viewer: Viewer, rollout: str, node: str, first: int, limit: int) -> LogSlice | None:
        lines = self.logs.get((rollout, node))
        if lines is None:
            return None
        start = max(len(lines) + first, 0) if first < 0 else first
        return LogSlice(lines=lines[start : start + min(limit, 5000)], first=start, total=len(lines))

    def history(self, viewer: Viewer, site: str, node: str, page: PageRequested) -> Paged[HistoryView]:
        found = [
            one
            for one in self.history_list
            if site in ("", one.site) and node in ("", one.node) and viewer.sees(one.site)
        ]
        return one_page(found, page, lambda one: one.site + one.node + one.ref)

    def operation(self, viewer: Viewer, site: str, id: str) -> HistoryView | None:
        return next((one for one in self.history_list if one.site == site and one.id == id and viewer.sees(site)), None)

    def notices(self, viewer: Viewer, page: PageRequested) -> Paged[NoticeView]:
        return one_page(self.notice_list if viewer.sees_all else (), page, lambda one: one.text)

    def audit(self, viewer: Viewer, site: str, page: PageRequested) -> Paged[AuditView]:
        found = [one for one in self.audit_list if site in ("", one.site) and viewer.sees(one.site)]
        return one_page(found, page, lambda one: one.site + one.action + one.who)

    def protected(self, viewer: Viewer) -> Mapping[str, tuple[str, ...]]:
        return {site: nodes for site, nodes in sorted(self.protected_sites.items()) if viewer.sees(site)}

    def access(self, viewer: Viewer, site: str) -> tuple[NodeAccess, ...]:
        return tuple(one for one in self.access_list if site in ("", one.site) and viewer.sees(one.site))
