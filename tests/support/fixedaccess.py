"""Access to protected sites from plain values; see `fixedactions`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import attrs

from deploykit.errors import ActionRefused
from deploykit.web.actions.asked import GrantAsked
from deploykit.web.actions.ports import AccessActions
from deploykit.web.actions.rights import require
from deploykit.web.actions.shown import AccessGranted, AccessRow, ActionOutcome
from deploykit.web.viewer import Viewer
from tests.support.consoleworld import NOW

#: Which nodes have a site.
NODES: Final[Mapping[str, tuple[str, ...]]] = {
    "shop": ("web-1", "web-2", "web-3", "web-4"),
    "docs": ("web-1", "web-2", "web-3", "web-4"),
    "billing": ("web-1", "web-2"),
    "search": ("web-3", "web-4"),
}
PASSWORD: Final = "kimu-tare-9wox-velu-4dap-zori"


@attrs.frozen(kw_only=True)
class Asked:
    """One call: the method's name, who called it, and with what."""

    what: str
    viewer: str
    values: tuple[object, ...]


@attrs.define(kw_only=True)
class FixedAccess(AccessActions):
    """Access to protected sites: `rows` are what nodes reported."""

    protected: tuple[str, ...] = ("billing", "docs")
    rows: list[AccessRow] = attrs.Factory(list)
    refusals: dict[str, ActionRefused] = attrs.Factory(dict)
    asked: list[Asked] = attrs.Factory(list)
    now: datetime = NOW

    def _note(self, what: str, viewer: Viewer, *values: object) -> None:
        self.asked.append(Asked(what=what, viewer=viewer.name, values=values))
        if what in self.refusals:
            raise self.refusals[what]

    def sites(self, viewer: Viewer) -> Sequence[str]:
        return [site for site in self.protected if viewer.may(site, "live")]

    def list(self, viewer: Viewer, site: str = "") -> Sequence[AccessRow]:
        return [one for one in self.rows if site in ("", one.site) and viewer.may(one.site, "live")]

    def grant(self, viewer: Viewer, asked: GrantAsked) -> AccessGranted:
        self._note("grant", viewer, asked)
        require(viewer, asked.site, "live", "grant access")
        if not asked.user or ":" in asked.user:
            raise ActionRefused("that is no name of a user", "letters and digits", status=422, user="no such name")
        row = AccessRow(
            site=asked.site, user=asked.user, until=self.now + timedelta(days=7), requested_by=viewer.name,
            nodes=tuple((node, "asked") for node in NODES.get(asked.site, ())),
        )  # fmt: skip
        self.rows = [*(one for one in self.rows if (one.site, one.user) != (asked.site, asked.user)), row]
        return AccessGranted(row=row, password=PASSWORD)

    def extend(self, viewer: Viewer, asked: GrantAsked) -> ActionOutcome:
        self._note("extend", viewer, asked)
        require(viewer, asked.site, "live", "extend access")
        return ActionOutcome(state="asked", site=asked.site, detail=f"{asked.user} may stay longer; nodes were asked.")

    def revoke(self, viewer: Viewer, site: str, user: str) -> ActionOutcome:
        self._note("revoke", viewer, site, user)
        require(viewer, site, "live", "revoke access")
        self.rows = [one for one in self.rows if (one.site, one.user) != (site, user)]
        return ActionOutcome(state="asked", site=site, detail=f"The nodes were asked to keep {user} out.")


__all__ = ["NODES", "PASSWORD", "Asked", "FixedAccess"]
