"""Rollouts, their logs and the history of sites, read from the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, func, select

from deploykit.web.projection.cells import moment, unpacked_dict, unpacked_list
from deploykit.web.projection.paging import narrowed, only_sites, paged, searched
from deploykit.web.projection.rolloutviews import (
    HistoryView,
    LogSlice,
    RolloutDetail,
    RolloutNode,
    RolloutOverview,
    StepView,
)
from deploykit.web.projection.tables import HISTORY, LOG_CHUNKS, ROLLOUT_NODES, ROLLOUTS
from deploykit.web.projection.versions import parts_of
from deploykit.web.projection.views import Paged, PageRequested, PartView
from deploykit.web.viewer import Viewer

#: Most lines of one answer.
MOST_LINES: Final = 5000


def read_rollouts(connection: Connection, viewer: Viewer, site: str, page: PageRequested) -> Paged[RolloutOverview]:
    """Return rollouts, newest first."""
    table = ROLLOUTS.c
    statement = narrowed(select(ROLLOUTS), only_sites(connection, viewer, table.site, site))
    statement = searched(
        statement, page, table.site, table.ref, table.commit, table.state, table.requested_by, table.rollout
    )
    return paged(
        connection, statement, (table.at, table.rollout), (int, str), page, lambda rows: _rollouts(connection, rows)
    )


def _rollouts(connection: Connection, rows: Sequence[Row[Any]]) -> list[RolloutOverview]:
    parts = parts_of(connection, rows)
    return [rollout_view(row, parts) for row in rows]


def rollout_view(row: Row[Any], parts: Mapping[str, tuple[PartView, ...]]) -> RolloutOverview:
    """Return the view of a row of `rollouts`; `parts` are those of versions, by commit."""
    return RolloutOverview(
        rollout=row.rollout,
        site=row.site,
        kind=row.kind,
        ref=row.ref,
        commit=row.commit,
        parts=parts.get(row.commit, ()),
        state=row.state,
        counts={str(name): int(count) for name, count in unpacked_dict(row.counts).items() if isinstance(count, int)},
        failed=tuple(map(str, unpacked_list(row.failed))),
        requested_by=row.requested_by,
        host=row.host,
        detail=row.detail,
        began=moment(row.began),
        changed=moment(row.changed),
        ended=moment(row.ended),
        single=bool(row.single),
    )


def read_rollout(connection: Connection, viewer: Viewer, rollout: str, page: PageRequested) -> RolloutDetail | None:
    """Return a rollout with a page of its nodes."""
    row = _visible(connection, viewer, rollout)
    if row is None:
        return None
    table = ROLLOUT_NODES.c
    statement = searched(select(ROLLOUT_NODES).where(table.rollout == rollout), page, table.node, table.state)
    total = connection.execute(select(func.count()).select_from(statement.subquery())).scalar_one()
    nodes = paged(
        connection,
        statement,
        (table.rank, table.node),
        (int, str),
        page,
        lambda rows: list(map(_node_view, rows)),
        descending=False,
        total=total,
    )
    return RolloutDetail(summary=rollout_view(row, parts_of(connection, [row])), nodes=nodes)


def _visible(connection: Connection, viewer: Viewer, rollout: str) -> Row[Any] | None:
    row = connection.execute(select(ROLLOUTS).where(ROLLOUTS.c.rollout == rollout)).first()
    return row if row is not None and viewer.sees(row.site) else None


def _node_view(row: Row[Any]) -> RolloutNode:
    return RolloutNode(
        node=row.node,
        state=row.state,
        phase=row.phase,
        detail=row.detail,
        request=row.request,
        steps=tuple(_step(each) for each in unpacked_list(row.steps)),
        log_lines=row.log_lines - row.log_lost,
        began=moment(row.began),
        ended=moment(row.ended),
    )


def _step(cells: dict[str, Any]) -> StepView:
    return StepView(
        name=str(cells.get("name", "")),
        state=str(cells.get("state", "")),
        phase=str(cells.get("phase", "")),
        seconds=float(cells.get("seconds") or 0.0),
        exit_code=cells.get("exit_code"),
        began=moment(cells.get("began")),
    )


def read_log(
    connection: Connection, viewer: Viewer, rollout: str, node: str, first: int, limit: int
) -> LogSlice | None:
    """Return lines of a node's log in a rollout; see `Queries.log`."""
    if _visible(connection, viewer, rollout) is None:
        return None
    table = ROLLOUT_NODES.c
    row = connection.execute(select(ROLLOUT_NODES).where(table.rollout == rollout, table.node == node)).first()
    if row is None:
        return None
    total, lost = row.log_lines, row.log_lost
    start = min(max(total + first if first < 0 else first, lost), total)
    end = min(start + min(max(limit, 0), MOST_LINES), total)
    lines: list[str] = []
    if end > start:
        chunk = LOG_CHUNKS.c
        statement = (
            select(chunk.first, chunk.text)
            .where(chunk.rollout == rollout, chunk.node == node, chunk.first < end, chunk.first + chunk.lines > start)
            .order_by(chunk.first)
        )
        for begin, text in connection.execute(statement):
            lines += text.split("\n")[max(0, start - begin) : end - begin]
    return LogSlice(lines=tuple(lines), first=start, total=total, lost=lost, open=row.ended is None)


def read_history(
    connection: Connection, viewer: Viewer, site: str, node: str, page: PageRequested
) -> Paged[HistoryView]:
    """Return operations on a site, newest first."""
    table = HISTORY.c
    statement = narrowed(
        select(HISTORY), only_sites(connection, viewer, table.site, site), table.node == node if node else None
    )
    statement = searched(
        statement, page, table.site, table.node, table.ref, table.commit, table.outcome, table.requested_by
    )
    return paged(
        connection, statement, (table.at, table.key), (int, str), page, lambda rows: _histories(connection, rows)
    )


def _histories(connection: Connection, rows: Sequence[Row[Any]]) -> list[HistoryView]:
    parts = parts_of(connection, rows)
    return [_history(row, parts) for row in rows]


def read_operation(connection: Connection, viewer: Viewer, site: str, id: str) -> HistoryView | None:
    """Return one operation by `NODE:NUMBER`."""
    node, _, number = id.rpartition(":")
    if not viewer.sees(site) or not (number.isascii() and number.isdigit() and len(number) < 19):
        return None
    table = HISTORY.c
    statement = select(HISTORY).where(table.site == site, table.node == node, table.number == int(number))
    row = connection.execute(statement).first()
    return None if row is None else _history(row, parts_of(connection, [row]))


def _history(row: Row[Any], parts: Mapping[str, tuple[PartView, ...]]) -> HistoryView:
    return HistoryView(
        id=f"{row.node}:{row.number}",
        site=row.site,
        node=row.node,
        number=row.number,
        provisional=bool(row.provisional),
        phase=row.phase,
        outcome=row.outcome,
        release=row.release,
        ref=row.ref,
        commit=row.commit,
        parts=parts.get(row.commit, ()),
        requested_by=row.requested_by,
        started=moment(row.started),
        finished=moment(row.finished),
        detail=row.detail,
        request=row.request,
        rollout=row.rollout,
    )
