"""Pages of lists: where the next one begins, as a text that a link can carry; and who may see which rows."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import Column, ColumnElement, Connection, Row, Select, and_, false, func, or_, select

from deploykit.web.projection.tables import SITE_NODES, SITES
from deploykit.web.projection.views import MAX_LIMIT, Paged, PageRequested
from deploykit.web.viewer import Viewer

T = TypeVar("T")
#: What a cursor may hold: of each sort column the last value.
Cursor = tuple[int | str, ...]
_ESCAPE: Final = "\\"


def read_cursor(text: str, kinds: Sequence[type]) -> Cursor | None:
    """Return the values of a cursor; None for the first page, also where the text is no cursor of these types.

    >>> read_cursor(write_cursor((3, "a")), (int, str))
    (3, 'a')
    """
    if not text:
        return None
    try:
        values = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
    if not isinstance(values, list) or len(values) != len(kinds):
        return None
    if not all(type(value) is kind for value, kind in zip(values, kinds, strict=True)):
        return None
    if any(isinstance(value, int) and abs(value) >= 2**63 for value in values):
        return None
    return tuple(
        "".join(c for c in v if c >= " " and not "\ud800" <= c <= "\udfff") if isinstance(v, str) else v for v in values
    )


def write_cursor(values: Cursor) -> str:
    """Return values as a text that a link can carry."""
    return base64.urlsafe_b64encode(json.dumps(list(values), separators=(",", ":")).encode()).decode().rstrip("=")


def paged(
    connection: Connection,
    statement: Select[Any],
    columns: Sequence[ColumnElement[Any]],
    kinds: Sequence[type],
    page: PageRequested,
    make: Callable[[Sequence[Row[Any]]], Sequence[T]],
    *,
    descending: bool = True,
    total: int | None = None,
) -> Paged[T]:
    """Return one page of a statement's rows.

    Args:
        connection: to read from.
        statement: without order and limit.
        columns, kinds: sorted by these, which no two rows share; and their types.
        page: the page.
        make: returns the views of rows, one each.
        descending: the greatest first.
        total: how many there are, if that was counted.
    """
    limit = min(max(page.limit, 1), MAX_LIMIT)
    after = read_cursor(page.after, kinds)
    if after is not None:
        statement = statement.where(_beyond(columns, after, descending=descending))
    order = [column.desc() if descending else column.asc() for column in columns]
    rows = connection.execute(statement.order_by(*order).limit(limit + 1)).all()
    found, more = rows[:limit], len(rows) > limit
    following = write_cursor(tuple(getattr(found[-1], column.name) for column in columns)) if more else ""
    return Paged(items=tuple(make(found)), next=following, total=total)


def _beyond(columns: Sequence[ColumnElement[Any]], after: Cursor, *, descending: bool) -> ColumnElement[bool]:
    found: list[ColumnElement[bool]] = []
    for at, column in enumerate(columns):
        same = [other == value for other, value in zip(columns[:at], after[:at], strict=True)]
        found.append(and_(*same, column < after[at] if descending else column > after[at]))
    return or_(*found)


def searched(statement: Select[Any], page: PageRequested, *columns: Column[str]) -> Select[Any]:
    """Return the statement with only those rows in which a column contains the text that is searched for."""
    text = page.search.replace("\x00", "").strip()
    if not text:
        return statement
    wanted = "".join(f"{_ESCAPE}{c}" if c in f"%_{_ESCAPE}" else c for c in text.lower())
    return statement.where(or_(*(func.lower(column).like(f"%{wanted}%", escape=_ESCAPE) for column in columns)))


def visible_sites(connection: Connection, viewer: Viewer) -> tuple[str, ...]:
    """Return the sites that a viewer may see, by name."""
    return viewer.visible(connection.execute(select(SITES.c.site).order_by(SITES.c.site)).scalars().all())


def only_sites(
    connection: Connection, viewer: Viewer, column: Column[str], site: str = ""
) -> ColumnElement[bool] | None:
    """Return the condition that a row is of a site that the viewer may see; None where they may see everything.

    Args:
        connection: to read from.
        viewer: who looks.
        column: names the site of a row; rows without one are only for those who see all.
        site: only this one; empty: all.
    """
    if site:
        return column == site if viewer.sees(site) else false()
    return None if viewer.sees_all else column.in_(visible_sites(connection, viewer))


def only_nodes(connection: Connection, viewer: Viewer, column: Column[str]) -> ColumnElement[bool] | None:
    """Return the condition that a row is of a node of a site that the viewer may see; None for no condition."""
    if viewer.sees_all:
        return None
    return column.in_(select(SITE_NODES.c.node).where(SITE_NODES.c.site.in_(visible_sites(connection, viewer))))


def visible_repos(connection: Connection, viewer: Viewer) -> frozenset[str] | None:
    """Return the repositories of the sites that a viewer may see; None where they may see everything."""
    if viewer.sees_all:
        return None
    sites = visible_sites(connection, viewer)
    statement = select(SITE_NODES.c.repo).where(SITE_NODES.c.site.in_(sites)).distinct()
    return frozenset(repo for repo in connection.execute(statement).scalars() if repo)


def only_repos(
    connection: Connection, viewer: Viewer, column: Column[str], repo: str = ""
) -> ColumnElement[bool] | None:
    """Return the condition that a row is of a repository that the viewer may see; None for no condition."""
    seen = visible_repos(connection, viewer)
    if repo:
        return column == repo if seen is None or repo in seen else false()
    return None if seen is None else column.in_(sorted(seen))


def narrowed(statement: Select[Any], *conditions: ColumnElement[bool] | None) -> Select[Any]:
    """Return the statement with the conditions that there are."""
    return statement.where(*(each for each in conditions if each is not None))
