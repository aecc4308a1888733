"""Pushes, builds, refs, notices and the audit, read from the database."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Final

import attrs
from sqlalchemy import CompoundSelect, Connection, Row, and_, func, or_, select, union

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
from deploykit.web.projection.tables import AUDIT, BUILDS, NODE_REFS, NOTICES, PUSHES, REPOS, SITE_NODES
from deploykit.web.projection.views import Paged, PageRequested
from deploykit.web.viewer import Viewer

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
    table = NODE_REFS.c
    newest = func.coalesce(func.max(table.at), 0).label("newest")
    ref = func.min(table.ref).label("ref")
    grouped = narrowed(
        searched(select(table.key, ref, newest), page, table.ref),
        only_repos(connection, viewer, table.repo, repo),
        only_nodes(connection, viewer, table.node),
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
    table = NODE_REFS.c
    mine = only_nodes(connection, viewer, table.node)
    mirroring = _mirroring(connection, viewer, repo)
    expected = connection.execute(select(func.count()).select_from(mirroring.subquery())).scalar_one()
    held: defaultdict[str, list[HeldAs]] = defaultdict(list)
    statement = (
        narrowed(
            select(table.key, table.commit, table.object, func.count(), func.coalesce(func.max(table.at), 0)), mine
        )
        .where(table.repo == repo, table.key.in_([row.key for row in rows]))
        .group_by(table.key, table.commit, table.object)
    )
    for key, commit, object_, nodes, at in connection.execute(statement):
        held[key].append(HeldAs(commit=commit, object=object_, nodes=nodes, at=at))
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
        missing = _missing(connection, mirroring, repo, row.key, holding) if holders < expected else ()
        view = RefView(
            repo=repo,
            ref=row.ref,
            commit=commit,
            time=moment(row.newest) if row.newest else None,
            holders=holders,
            expected=expected,
            missing=missing,
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
    """
    peeled = {each.object: each.commit for each in held if each.object and each.commit}
    commits = [each.commit or peeled.get(each.object, each.object) for each in held]
    ages: dict[str, int] = {}
    votes: Counter[str] = Counter()
    for each, commit in zip(held, commits, strict=True):
        ages[commit] = max(ages.get(commit, 0), each.at)
        votes[commit] += each.nodes
    newest = max(votes, key=lambda commit: (ages[commit], votes[commit], commit), default="")
    return newest, [each for each, commit in zip(held, commits, strict=True) if commit == newest]


def _missing(
    connection: Connection, mirroring: CompoundSelect[str], repo: str, key: str, holding: Sequence[HeldAs]
) -> tuple[str, ...]:
    """Return nodes that mirror a repository and do not hold a ref as others do."""
    table = NODE_REFS.c
    forms = or_(*(and_(table.commit == each.commit, table.object == each.object) for each in holding))
    holders = select(table.node).where(table.repo == repo, table.key == key, forms)
    nodes = mirroring.subquery()
    statement = select(nodes.c.node).where(nodes.c.node.not_in(holders)).order_by(nodes.c.node).limit(_NAMED)
    return tuple(connection.execute(statement).scalars())


def _mirroring(connection: Connection, viewer: Viewer, repo: str) -> CompoundSelect[str]:
    """Return the question which nodes mirror a repository, as far as the viewer may see them."""
    found = [
        narrowed(select(table.c.node), table.c.repo == repo, only_nodes(connection, viewer, table.c.node))
        for table in (NODE_REFS, SITE_NODES)
    ]
    return union(*found)
