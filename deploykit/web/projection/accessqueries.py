"""Who may see protected sites, read from the projection."""

from __future__ import annotations

from datetime import datetime

import attrs
from sqlalchemy import Connection, select

from deploykit.web.projection.cells import clean, moment, time_of
from deploykit.web.projection.foldaccess import ENDED
from deploykit.web.projection.tables import ACCESS, PROTECTED
from deploykit.web.viewer import Viewer

#: Most rows that are read at once.
_MOST = 20_000


@attrs.frozen(kw_only=True, slots=True)
class NodeAccess:
    """An access of a user on one node, as far as the node has reported it.

    Args:
        state: `granted`; `asked`: no answer yet; `failed` or `refused`: there is none, and `detail` says why.
        until: when it ends; None for ever, by somebody else's hand, or not known yet.
        asked: the id of the newest command, while the node has not answered it.
        detail: of the last answer that was none.
        answered: the id of the last command that the node has answered; empty where that is not known.
        reported: when the node reported it, by its clock; None where it has not.
    """

    site: str
    user: str
    node: str
    state: str
    until: datetime | None = None
    requested_by: str = ""
    asked: str = ""
    detail: str = ""
    answered: str = ""
    reported: datetime | None = None


def read_protected(connection: Connection, viewer: Viewer) -> dict[str, tuple[str, ...]]:
    """Return the protected sites that a viewer may look at, with their nodes, both by name."""
    found: dict[str, list[str]] = {}
    for site, node in connection.execute(select(PROTECTED.c.site, PROTECTED.c.node).order_by(*PROTECTED.primary_key)):
        if viewer.sees(site):
            found.setdefault(site, []).append(node)
    return {site: tuple(nodes) for site, nodes in found.items()}


def read_access(connection: Connection, viewer: Viewer, site: str) -> tuple[NodeAccess, ...]:
    """Return the accesses to a site, or to all, by site, user and node; those that ended are left out."""
    wanted = select(ACCESS).where(ACCESS.c.state.not_in(ENDED)).order_by(ACCESS.c.site, ACCESS.c.user, ACCESS.c.node)
    if site:
        wanted = wanted.where(ACCESS.c.site == clean(site))
    return tuple(
        NodeAccess(
            site=row.site,
            user=row.user,
            node=row.node,
            state=row.state,
            until=moment(row.until),
            requested_by=row.by or row.asked_by,
            asked=row.asked,
            detail=row.detail,
            answered=row.request,
            reported=time_of(row.ord) if row.ord else None,
        )
        for row in connection.execute(wanted.limit(_MOST))
        if viewer.sees(row.site)
    )


__all__ = ["NodeAccess", "read_access", "read_protected"]
