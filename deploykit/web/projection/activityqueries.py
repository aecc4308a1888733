"""Pushes, builds, refs, notices and the audit, read from the database."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
from sqlalchemy import ColumnElement, CompoundSelect, Connection, Row, exists, func, select, union

from deploykit.web.projection.activityviews import AuditView, BuildView, CommitView, NoticeView, PushView, RefView
from deploykit.web.projection.cells import moment, moment_of, unpacked_list
from deploykit.web.projection.paging import (
    narrowed,
    only_nodes,
    only_repos,
    only_sites,
    paged,
    searched,
    visible_repos,
    visible_sites,
)
from deploykit.web.projection.refforms import NO_AGE
from deploykit.web.projection.tables import (
    AUDIT,
    BUILDS,
    NODE_REFS,
    NODES,
    NOTICES,
    PUSHES,
    REF_FORMS,
    REPOS,
    SITE_NODES,
)
from deploykit.web.projection.views import Paged, PageRequested
from deploykit.web.viewer import Viewer

#: Refs of each repository that the console asks a node for.
LISTED_REFS: Final = 100
#: Nodes without a ref that are named.
_NAMED: Final = 20


def read_pushes(connection: Connection, viewer: Viewer, repo: str, page: PageRequested) -> Paged[PushView]:
    """Return pushes, newest first."""
    table = PUSHES.c
    statement = narrowed(select(PUSHES), only_repos(connection, viewer, table.repo, repo))
    statement = searched(statement, page, table.ref, table.pusher, table.repo, table.new, table.commits)
    return paged(
        connection, statement, (table.at, table.key), (int, str), page, lambda rows: list(map(push_view, rows))
    )


def push_view(row: Row[Any]) -> PushView:
    """Return the view of a row of `pushes`."""
    return PushView(
        id=row.id,
        time=moment_of(row.at),
        repo=row.repo,
        ref=row.ref,
        kind=row.kind,
        old=row.old,
        new=row.new,
        pusher=row.pusher,
        source=row.source,
        commits=tuple(CommitView(**commit) for commit in unpacked_list(row.commits)),
        commit_count=row.commit_count,
        revision=row.revision,
        projects=tuple(map(str, unpacked_list(row.projects))),
        correlation=row.correlation,
    )


def read_builds(connection: Connection, viewer: Viewer, repo: str, page: PageRequested) -> Paged[BuildView]:
    """Return builds, newest first."""
    table = BUILDS.c
    statement = narrowed(select(BUILDS), only_repos(connection, viewer, table.repo, repo))
    statement = searched(statement, page, table.job, table.ref, table.repo, table.commit, table.state)
    return paged(
        connection, statement, (table.at, table.key), (int, str), page, lambda rows: list(map(build_view, rows))
    )


def build_view(row: Row[Any]) -> BuildView:
    """Return the view of a row of `builds`."""
    return BuildView(
        id=row.id,
        time=moment_of(row.at),
        repo=row.repo,
        ref=row.ref,
        commit=row.commit,
        job=row.job,
        number=row.number,
        url=row.url,
        state=row.state,
        signer=row.signer,
        correlation=row.correlation,
    )


def read_notices(connection: Connection, viewer: Viewer, page: PageRequested) -> Paged[NoticeView]:
    """Return lines for people, newest first."""
    if not viewer.sees_all:
        return Paged(items=())
    table = NOTICES.c
    statement = searched(select(NOTICES), page, table.text, table.source)
    return paged(
        connection,
        statement,
        (table.at, table.key),
        (int, str),
        page,
        lambda rows: [NoticeView(id=r.id, time=moment_of(r.at), source=r.source, text=r.text) for r in rows],
    )


def read_audit(connection: Connection, viewer: Viewer, site: str, page: PageRequested) -> Paged[AuditView]:
    """Return who asked for what and what was decided, newest first."""
    table = AUDIT.c
    statement = narrowed(select(AUDIT), only_sites(connection, viewer, table.site, site))
    statement = searched(
        statement, page, table.action, table.decision, table.who, table.signer, table.place, table.site, table.detail
    )
    return paged(
        connection, statement, (table.at, table.key), (int, str), page, lambda rows: list(map(_audit_view, rows))
    )


def _audit_view(row: Row[Any]) -> AuditView:
    return AuditView(
        id=row.id,
        time=moment_of(row.at),
        action=row.action,
        decision=row.decision,
        who=row.who,
        signer=row.signer,
        where=row.place,
        site=row.site,
        rollout=row.rollout,
        detail=row.detail,
    )


def read_repositories(connection: Connection, viewer: Viewer) -> tuple[str, ...]:
    """Return the repositories that are known, by name."""
    seen = visible_repos(connection, viewer)
    if seen is not None:
        return tuple(sorted(seen))
    return tuple(connection.execute(select(REPOS.c.repo).order_by(REPOS.c.repo)).scalars())


def read_refs(connection: Connection, viewer: Viewer, repo: str, page: PageRequested) -> Paged[RefView]:
    """Return the refs that nodes hold, newest first."""
    table = REF_FORMS.c if viewer.sees_all else NODE_REFS.c
    newest = func.coalesce(func.max(func.nullif(table.at, NO_AGE)), 0).label("newest")
    ref = func.min(table.ref).label("ref")
    grouped = narrowed(
        searched(select(table.key, ref, newest), page, table.ref),
        only_repos(connection, viewer, table.repo, repo),
        only_nodes(connection, viewer, NODE_REFS.c.node),
    ).group_by(table.key)
    inner = grouped.subquery()
    return paged(
        connection,
        select(inner),
        (inner.c.newest, inner.c.key),
        (int, str),
        page,
        lambda rows: _ref_views(connection, viewer, repo, rows),
    )


def _ref_views(connection: Connection, viewer: Viewer, repo: str, rows: Sequence[Row[Any]]) -> list[RefView]:
    # Who may see all nodes sees what is counted already.
    table = REF_FORMS.c if viewer.sees_all else NODE_REFS.c
    nodes = func.sum(REF_FORMS.c.nodes) if viewer.sees_all else func.count()
    mine = only_nodes(connection, viewer, NODE_REFS.c.node)
    mirroring = _mirroring(connection, viewer, repo)
    expected = connection.execute(select(func.count()).select_from(mirroring.subquery())).scalar_one()
    listed: Mapping[str, int] | None = None
    held: defaultdict[str, list[HeldAs]] = defaultdict(list)
    newest_at = func.coalesce(func.max(func.nullif(table.at, NO_AGE)), 0)
    statement = (
        narrowed(select(table.key, table.commit, table.object, nodes, newest_at), mine)
        .where(table.repo == repo, table.key.in_([row.key for row in rows]))
        .group_by(table.key, table.commit, table.object)
    )
    for key, commit, object_, count, at in connection.execute(statement):
        held[key].append(HeldAs(commit=commit, object=object_, nodes=int(count), at=at))
    live: defaultdict[str, list[str]] = defaultdict(list)
    places = SITE_NODES.c
    sites = visible_sites(connection, viewer)
    found = select(places.ref, places.site).where(places.repo == repo, places.site.in_(sites), places.ref != "")
    for ref, site in connection.execute(found.distinct().order_by(places.site)):
        live[ref].append(site)
    views = []
    for row in rows:
        commit, holding = newest_held(held[row.key])
        holders = sum(each.nodes for each in holding)
        missing: list[str] = []
        if holders < expected:
            listed = _listed_from(connection, mirroring, repo) if listed is None else listed
            missing = _missing(connection, mine, repo, row, holding, listed)
        view = RefView(
            repo=repo,
            ref=row.ref,
            commit=commit,
            time=moment(row.newest) if row.newest else None,
            holders=holders,
            expected=holders + len(missing),
            missing=tuple(missing[:_NAMED]),
            live=tuple(live[row.ref]),
        )
        views.append(view)
    return views


@attrs.frozen(kw_only=True, slots=True)
class HeldAs:
    """What a ref names on some nodes: a commit, or an object of which only that is known.

    Args:
        nodes: how many.
        at: how old the commit is.
    """

    commit: str
    object: str
    nodes: int
    at: int


def newest_held(held: Sequence[HeldAs]) -> tuple[str, list[HeldAs]]:
    """Return the newest commit that a ref names on any node, and in which forms nodes hold that one.

    Of a tag that a node has just fetched only the tag's own object is known: another node says which commit that is.
    Where no node does, that object cannot be told from the newest commit that others have listed: they count as one.
    """
    peeled = {each.object: each.commit for each in held if each.object and each.commit}
    listed = max((each for each in held if each.commit), key=_age, default=None)
    fetched = max((each for each in held if not each.commit and each.object not in peeled), key=_age, default=None)
    if listed is not None and fetched is not None and listed.commit not in peeled.values():
        peeled[fetched.object] = listed.commit
    commits = [each.commit or peeled.get(each.object, each.object) for each in held]
    ages: dict[str, int] = {}
    votes: Counter[str] = Counter()
    for each, commit in zip(held, commits, strict=True):
        ages[commit] = max(ages.get(commit, 0), each.at)
        votes[commit] += each.nodes
    newest = max(votes, key=lambda commit: (ages[commit], votes[commit], commit), default="")
    return newest, [each for each, commit in zip(held, commits, strict=True) if commit == newest]


def _age(held: HeldAs) -> tuple[int, int, str]:
    return held.at, held.nodes, held.commit or held.object


def _missing(
    connection: Connection,
    mine: ColumnElement[bool] | None,
    repo: str,
    ref: Row[Any],
    holding: Sequence[HeldAs],
    listed: Mapping[str, int],
) -> list[str]:
    """Return nodes that do not hold a ref as others do: they hold another commit, or would have listed it."""
    table = NODE_REFS.c
    wanted = {(each.commit, each.object) for each in holding}
    statement = narrowed(
        select(table.node, table.commit, table.object).where(table.repo == repo, table.key == ref.key), mine
    )
    held = {node: (commit, object_) in wanted for node, commit, object_ in connection.execute(statement)}
    lacking = (node for node, oldest in listed.items() if node not in held and oldest <= ref.newest)
    return sorted([*lacking, *(node for node, as_others in held.items() if not as_others)])


def _listed_from(connection: Connection, mirroring: CompoundSelect[str], repo: str) -> dict[str, int]:
    """Return from which time on a node that mirrors a repository has listed its refs; 0: it has listed all of them.

    Nodes list the newest refs alone where there are many. What a node was never asked for it does not lack.
    """
    table, nodes = NODE_REFS.c, NODES.c
    held = select(table.node, func.count().label("refs"), func.min(table.at).label("oldest"))
    counts = held.where(table.repo == repo).group_by(table.node).subquery()
    statement = (
        select(nodes.node, nodes.cut, func.coalesce(counts.c.refs, 0), func.coalesce(counts.c.oldest, 0))
        .outerjoin_from(NODES, counts, counts.c.node == nodes.node)
        .where(nodes.refs_ord != "", nodes.node.in_(mirroring))
    )
    return {
        node: oldest if refs >= LISTED_REFS or unpacked_list(cut) else 0
        for node, cut, refs, oldest in connection.execute(statement)
    }


def _mirroring(connection: Connection, viewer: Viewer, repo: str) -> CompoundSelect[str]:
    """Return the question which nodes mirror a repository, as far as the viewer may see them."""
    # A node may hold thousands of refs: one of them is enough, so it is asked of the nodes.
    holds = exists().where(NODE_REFS.c.node == NODES.c.node, NODE_REFS.c.repo == repo)
    found = [
        narrowed(select(table.c.node), condition, only_nodes(connection, viewer, table.c.node))
        for table, condition in ((NODES, holds), (SITE_NODES, SITE_NODES.c.repo == repo))
    ]
    return union(*found)
