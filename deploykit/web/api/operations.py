"""The table of what the API answers. A view is one call of the projection's queries."""

from __future__ import annotations

from typing import Final

import attrs

from deploykit._version import __version__
from deploykit.web.api.actionreads import ACTION_READS
from deploykit.web.api.diffs import HISTORY_DIFF, SITE_DIFF
from deploykit.web.api.operation import PAGE, ApiCall, ApiOperation, written_path
from deploykit.web.api.parameters import Parameter
from deploykit.web.api.problems import RequestRefused
from deploykit.web.pages.logtext import shown_lines
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
    Problem,
    ProjectionHealth,
    SiteOnNode,
    SiteSummary,
)
from deploykit.web.rolloutlookup import find_log, find_rollout

#: Lines of a log in one answer.
MAX_LINES: Final = 5000

_SITE = Parameter(name="site", description="Only of this site.")
_NODE = Parameter(name="node", description="Only of this node.")
_REPO = Parameter(name="repo", description="Only of this repository.", example="group/widget")


def _whole(items: tuple[object, ...]) -> Paged[object]:
    """Return a list that is never cut as its only page, so that all lists look alike."""
    return Paged(items=items, total=len(items))


@attrs.frozen(kw_only=True, slots=True)
class ApiIndex:
    """What there is to ask for.

    Args:
        version: of deploykit.
        openapi: where the description of the API is.
        paths: what can be read, variable parts in braces.
        viewer: as whom the reader is logged in.
    """

    version: str
    openapi: str
    paths: tuple[str, ...]
    viewer: str = ""


def _index(call: ApiCall) -> object:
    return ApiIndex(
        version=__version__,
        openapi="openapi.json",
        paths=(*(written_path(operation.path) for operation in OPERATIONS), "/events"),
        viewer=call.viewer.name,
    )


def _health(call: ApiCall) -> object:
    return call.context.queries.health(call.viewer)


def _problems(call: ApiCall) -> object:
    return _whole(call.context.queries.problems(call.viewer, call.query.number("limit", 50)))


def _changes(call: ApiCall) -> object:
    return _whole(call.context.queries.changes(call.viewer, call.query.number("limit", 20)))


def _sites(call: ApiCall) -> object:
    return _whole(call.context.queries.sites(call.viewer))


def _site(call: ApiCall) -> object:
    return call.context.queries.site(call.viewer, call.path["site"])


def _site_nodes(call: ApiCall) -> object:
    if _site(call) is None:
        return None
    return call.context.queries.site_nodes(call.viewer, call.path["site"], call.page)


def _nodes(call: ApiCall) -> object:
    return call.context.queries.nodes(call.viewer, call.page)


def _node(call: ApiCall) -> object:
    return call.context.queries.node(call.viewer, call.path["node"])


def _node_mirrors(call: ApiCall) -> object:
    if _node(call) is None:
        return None
    return call.context.queries.node_mirrors(call.viewer, call.path["node"], call.page)


def _repositories(call: ApiCall) -> object:
    return _whole(call.context.queries.repositories(call.viewer))


def _refs(call: ApiCall) -> object:
    if call.path["repo"] not in call.context.queries.repositories(call.viewer):
        return None
    return call.context.queries.refs(call.viewer, call.path["repo"], call.page)


def _pushes(call: ApiCall) -> object:
    return call.context.queries.pushes(call.viewer, call.query.text("repo"), call.page)


def _builds(call: ApiCall) -> object:
    return call.context.queries.builds(call.viewer, call.query.text("repo"), call.page)


def _deploys(call: ApiCall) -> object:
    return call.context.queries.rollouts(call.viewer, call.query.text("site"), call.page)


def _deploy(call: ApiCall) -> object:
    return find_rollout(call.context, call.viewer, call.path["deploy"], call.page)


def _log(call: ApiCall) -> object:
    return find_log(
        call.context,
        call.viewer,
        call.path["deploy"],
        call.path["node"],
        call.query.number("first", 0),
        call.query.number("limit", 1000),
    )


def _log_text(value: object) -> str:
    """Return lines as a terminal may print them: what scripts printed must not be able to control it."""
    return shown_lines(value.lines) if isinstance(value, LogSlice) else ""


def _history(call: ApiCall) -> object:
    return call.context.queries.history(call.viewer, call.query.text("site"), call.query.text("node"), call.page)


def _operation(call: ApiCall) -> object:
    return call.context.queries.operation(call.viewer, call.path["site"], call.path["operation"])


def _audit(call: ApiCall) -> object:
    return call.context.queries.audit(call.viewer, call.query.text("site"), call.page)


def _notices(call: ApiCall) -> object:
    if not call.viewer.sees_all:
        raise RequestRefused(403, "notices belong to no site: only those who see all sites may read them")
    return call.context.queries.notices(call.viewer, call.page)


def _most(default: int) -> Parameter:
    return Parameter(name="limit", description="Most items.", least=1, most=500, default=default)


OPERATIONS: Final[tuple[ApiOperation, ...]] = (
    ApiOperation(name="index", path="/", summary="What there is to ask for", answer=ApiIndex, view=_index),
    ApiOperation(
        name="health",
        path="/health",
        summary="Whether what is shown can be relied on",
        answer=ProjectionHealth,
        view=_health,
    ),
    ApiOperation(
        name="problems",
        path="/problems",
        summary="What is wrong, the worst first",
        answer=Paged[Problem],
        view=_problems,
        query=(_most(50),),
    ),
    ApiOperation(
        name="changes",
        path="/changes",
        summary="What changed last, the newest first",
        answer=Paged[LatestChange],
        view=_changes,
        query=(_most(20),),
    ),
    ApiOperation(name="sites", path="/sites", summary="Every site, by name", answer=Paged[SiteSummary], view=_sites),
    ApiOperation(name="site", path="/sites/{site}", summary="One site", answer=SiteSummary, view=_site),
    ApiOperation(
        name="site_nodes",
        path="/sites/{site}/nodes",
        summary="The nodes of a site, those that need a look first, then by name",
        answer=Paged[SiteOnNode],
        view=_site_nodes,
        query=PAGE,
    ),
    SITE_DIFF,
    ApiOperation(
        name="operation",
        path="/sites/{site}/history/{operation}",
        summary="One operation on a site, NODE:NUMBER",
        answer=HistoryView,
        view=_operation,
    ),
    ApiOperation(
        name="nodes", path="/nodes", summary="Nodes, by name", answer=Paged[NodeSummary], view=_nodes, query=PAGE
    ),
    ApiOperation(name="node", path="/nodes/{node}", summary="One node", answer=NodeSummary, view=_node),
    ApiOperation(
        name="node_mirrors",
        path="/nodes/{node}/mirrors",
        summary="What the mirrors of a node fetched last, newest first",
        answer=Paged[MirrorView],
        view=_node_mirrors,
        query=PAGE,
    ),
    ApiOperation(
        name="repositories",
        path="/repositories",
        summary="The repositories that are known, by name",
        answer=Paged[str],
        view=_repositories,
    ),
    ApiOperation(
        name="refs",
        path="/refs/{repo:path}",
        summary="The refs that nodes hold, newest first",
        answer=Paged[RefView],
        view=_refs,
        query=PAGE,
    ),
    ApiOperation(
        name="pushes",
        path="/pushes",
        summary="Pushes, newest first",
        answer=Paged[PushView],
        view=_pushes,
        query=(_REPO, *PAGE),
    ),
    ApiOperation(
        name="builds",
        path="/builds",
        summary="Builds, newest first",
        answer=Paged[BuildView],
        view=_builds,
        query=(_REPO, *PAGE),
    ),
    ApiOperation(
        name="deploys",
        path="/deploys",
        summary="Rollouts and single commands, newest first",
        answer=Paged[RolloutOverview],
        view=_deploys,
        query=(_SITE, *PAGE),
    ),
    ApiOperation(
        name="deploy",
        path="/deploys/{deploy}",
        summary="A rollout with its nodes, those that failed first",
        answer=RolloutDetail,
        view=_deploy,
        query=PAGE,
    ),
    ApiOperation(
        name="log",
        path="/deploys/{deploy}/nodes/{node}/log",
        summary="What the scripts of a node printed in a rollout",
        answer=LogSlice,
        view=_log,
        query=(
            Parameter(
                name="first",
                description="Number of the first line, from 0; below 0: so many before the end.",
                least=-(10**9),
                most=10**9,
                default=0,
            ),
            Parameter(name="limit", description="Most lines.", least=1, most=MAX_LINES, default=1000),
        ),
        plain_text=_log_text,
    ),
    ApiOperation(
        name="history",
        path="/history",
        summary="Operations on sites, newest first",
        answer=Paged[HistoryView],
        view=_history,
        query=(_SITE, _NODE, *PAGE),
    ),
    HISTORY_DIFF,
    ApiOperation(
        name="audit",
        path="/audit",
        summary="Who asked for what and what was decided, newest first",
        answer=Paged[AuditView],
        view=_audit,
        query=(_SITE, *PAGE),
    ),
    ApiOperation(
        name="notices",
        path="/notices",
        summary="Lines for people, newest first; for those who see all sites",
        answer=Paged[NoticeView],
        view=_notices,
        query=PAGE,
    ),
    *ACTION_READS,
)

__all__ = ["MAX_LINES", "OPERATIONS"]
