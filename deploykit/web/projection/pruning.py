"""What is removed from the projection, in small steps: what is too old, and the oldest rows beyond a number."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Column, Connection, Table, and_, delete, func, select

from deploykit.web.projection.refforms import forget_nodes
from deploykit.web.projection.tables import (
    ACCESS,
    AUDIT,
    BUILDS,
    COMMANDS,
    HISTORY,
    LOCKS,
    LOG_CHUNKS,
    MIRRORS,
    NODE_REFS,
    NODES,
    NOTICES,
    PROTECTED,
    PUSHES,
    QUESTIONS,
    ROLLOUT_NODES,
    ROLLOUTS,
    SITE_NODES,
    SITES,
    VERSIONS,
)

#: Rows of one table that one step removes.
STEP: Final = 2000
_BY_AGE: Final = (PUSHES, BUILDS, NOTICES, AUDIT, HISTORY, COMMANDS, ROLLOUTS, MIRRORS, VERSIONS)
#: What was asked of nodes is needed for minutes.
_QUESTIONS_KEPT: Final = 2000


def prune_some(connection: Connection, oldest: int, keep_rows: int) -> tuple[int, set[str]]:
    """Remove some rows; return how many, and the sites that must be compared anew.

    Args:
        connection: in a transaction that writes.
        oldest: what is older goes, as a cell.
        keep_rows: most rows of one table.
    """
    removed = 0
    for table in _BY_AGE:
        removed += _older(connection, table, oldest)
        removed += _beyond(connection, table, keep_rows)
    removed += _beyond(connection, QUESTIONS, _QUESTIONS_KEPT)
    removed += _orphans(connection, keep_rows)
    gone, sites = _lost_nodes(connection, oldest)
    return removed + gone + _empty_sites(connection), sites


def _older(connection: Connection, table: Table, oldest: int) -> int:
    keys = _keys(table)
    found = connection.execute(select(*keys).where(table.c.at < oldest).order_by(table.c.at).limit(STEP)).all()
    return _delete(connection, table, keys, [tuple(row) for row in found])


def _beyond(connection: Connection, table: Table, keep: int) -> int:
    count = connection.execute(select(func.count()).select_from(table)).scalar_one()
    if count <= keep:
        return 0
    keys = _keys(table)
    found = connection.execute(select(*keys).order_by(table.c.at).limit(min(STEP, count - keep))).all()
    return _delete(connection, table, keys, [tuple(row) for row in found])


def _keys(table: Table) -> list[Column[str]]:
    return list(table.primary_key)


def _delete(connection: Connection, table: Table, keys: list[Column[str]], rows: list[tuple[str, ...]]) -> int:
    if len(keys) == 1 and rows:
        for at in range(0, len(rows), 500):
            connection.execute(delete(table).where(keys[0].in_([row[0] for row in rows[at : at + 500]])))
    elif rows:
        for row in rows:
            connection.execute(delete(table).where(and_(*(key == value for key, value in zip(keys, row, strict=True)))))
    return len(rows)


def _orphans(connection: Connection, keep_rows: int) -> int:
    """Remove the nodes and logs of rollouts that are gone, and the logs of the oldest beyond the number."""
    kept = select(ROLLOUTS.c.rollout)
    removed = 0
    for table in (ROLLOUT_NODES, LOG_CHUNKS):
        gone = connection.execute(
            select(table.c.rollout).where(table.c.rollout.not_in(kept)).distinct().limit(50)
        ).scalars()
        for rollout in gone.all():
            removed += connection.execute(delete(table).where(table.c.rollout == rollout)).rowcount
    count = connection.execute(select(func.count()).select_from(LOG_CHUNKS)).scalar_one()
    if count > keep_rows:
        oldest = connection.execute(select(ROLLOUTS.c.rollout).order_by(ROLLOUTS.c.at).limit(1)).scalars().all()
        removed += _delete(connection, ROLLOUTS, [ROLLOUTS.c.rollout], [(each,) for each in oldest])
    return removed


def _lost_nodes(connection: Connection, oldest: int) -> tuple[int, set[str]]:
    """Remove nodes that were not heard for as long as anything is kept."""
    nodes = connection.execute(select(NODES.c.node).where(NODES.c.seen < oldest).limit(50)).scalars().all()
    if not nodes:
        return 0, set()
    sites = set(connection.execute(select(SITE_NODES.c.site).where(SITE_NODES.c.node.in_(nodes))).scalars())
    forget_nodes(connection, nodes)
    for table in (NODES, SITE_NODES, NODE_REFS, MIRRORS, ACCESS, PROTECTED):
        connection.execute(delete(table).where(table.c.node.in_(nodes)))
    return len(nodes), sites


def _empty_sites(connection: Connection) -> int:
    """Remove sites of which nothing is kept."""
    statement = delete(SITES)
    for table in (SITE_NODES, ROLLOUTS, HISTORY, LOCKS):
        statement = statement.where(SITES.c.site.not_in(select(table.c.site)))
    return connection.execute(statement).rowcount
