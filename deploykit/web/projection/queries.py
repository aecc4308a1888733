"""The questions that pages and the API ask of the projection. Use it from any thread.

Each takes a `Viewer` and returns nothing that they may not see.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

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
from deploykit.web.projection.rolloutviews import HistoryView, LogSlice, RolloutDetail, RolloutOverview
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


class Queries(ABC):
    """What can be asked. None, or an empty page, where there is no such thing or the viewer may not see it."""

    @abstractmethod
    def health(self, viewer: Viewer) -> ProjectionHealth:
        """Return whether what is shown can be relied on; without what it says of sites that they may not see."""

    @abstractmethod
    def problems(self, viewer: Viewer, limit: int = 50) -> tuple[Problem, ...]:
        """Return what is wrong, the worst first."""

    @abstractmethod
    def changes(self, viewer: Viewer, limit: int = 20) -> tuple[LatestChange, ...]:
        """Return what changed last, the newest first."""

    @abstractmethod
    def sites(self, viewer: Viewer) -> tuple[SiteSummary, ...]:
        """Return every site, by name."""

    @abstractmethod
    def site(self, viewer: Viewer, site: str) -> SiteSummary | None:
        """Return one site."""

    @abstractmethod
    def site_nodes(self, viewer: Viewer, site: str, page: PageRequested) -> Paged[SiteOnNode]:
        """Return the nodes of a site, those that need a look first, then by name."""

    @abstractmethod
    def nodes(self, viewer: Viewer, page: PageRequested) -> Paged[NodeSummary]:
        """Return nodes by name; `total` is counted."""

    @abstractmethod
    def node(self, viewer: Viewer, node: str) -> NodeSummary | None:
        """Return one node."""

    @abstractmethod
    def node_mirrors(self, viewer: Viewer, node: str, page: PageRequested) -> Paged[MirrorView]:
        """Return what a node's mirrors fetched last, newest first."""

    @abstractmethod
    def repositories(self, viewer: Viewer) -> tuple[str, ...]:
        """Return the repositories that are known, by name."""

    @abstractmethod
    def refs(self, viewer: Viewer, repo: str, page: PageRequested) -> Paged[RefView]:
        """Return the refs that nodes hold, newest first."""

    @abstractmethod
    def pushes(self, viewer: Viewer, repo: str, page: PageRequested) -> Paged[PushView]:
        """Return pushes, newest first; of all repositories where `repo` is empty."""

    @abstractmethod
    def builds(self, viewer: Viewer, repo: str, page: PageRequested) -> Paged[BuildView]:
        """Return builds, newest first; of all repositories where `repo` is empty."""

    @abstractmethod
    def rollouts(self, viewer: Viewer, site: str, page: PageRequested) -> Paged[RolloutOverview]:
        """Return rollouts, newest first; of all sites where `site` is empty."""

    @abstractmethod
    def rollout(self, viewer: Viewer, rollout: str, page: PageRequested) -> RolloutDetail | None:
        """Return a rollout with a page of its nodes, those that failed first, then those at work, then by name."""

    @abstractmethod
    def log(self, viewer: Viewer, rollout: str, node: str, first: int, limit: int) -> LogSlice | None:
        """Return lines of what a node's scripts printed in a rollout.

        Args:
            first: number of the first line; below 0: so many before the end.
            limit: most lines; at most 5,000.
        """

    @abstractmethod
    def history(self, viewer: Viewer, site: str, node: str, page: PageRequested) -> Paged[HistoryView]:
        """Return operations on a site, newest first; on all nodes where `node` is empty, all sites where `site` is."""

    @abstractmethod
    def operation(self, viewer: Viewer, site: str, id: str) -> HistoryView | None:
        """Return one operation."""

    @abstractmethod
    def notices(self, viewer: Viewer, page: PageRequested) -> Paged[NoticeView]:
        """Return lines for people, newest first; only for those who see all sites."""

    @abstractmethod
    def audit(self, viewer: Viewer, site: str, page: PageRequested) -> Paged[AuditView]:
        """Return who asked for what and what was decided, newest first; of all sites where `site` is empty."""

    @abstractmethod
    def protected(self, viewer: Viewer) -> Mapping[str, tuple[str, ...]]:
        """Return the protected sites with the nodes that protect them, both by name."""

    @abstractmethod
    def access(self, viewer: Viewer, site: str) -> tuple[NodeAccess, ...]:
        """Return who may see a site, or all of them where `site` is empty, on each node."""
