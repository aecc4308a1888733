"""What somebody who is logged in may do. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from deploykit.settings.web import ROLES, WebAccessSettings, WebRole
from deploykit.web.viewer import RoleCap, RoleGrant, Viewer

#: In `[[web.access]] users`: everybody who is logged in.
_ANYBODY: Final = "*"
#: Before the name of a group of the provider.
GROUP: Final = "@"


def viewer_for(
    name: str, access: Sequence[WebAccessSettings], groups: Collection[str] = (), *, cap: RoleCap | None = None
) -> Viewer:
    """Return what a name may do. Names are compared exactly; without any rule everybody may look at everything.

    Args:
        name: whoever is called like a group (`@ops`) or like everybody (`*`) is neither by that.
        access: the rules.
        groups: as the provider named them; `@NAME` in a rule.
        cap: of the token they have shown.
    """
    if not access:
        return Viewer(name=name, grants=(RoleGrant(sites="*", role="look"),), cap=cap)
    words = {_ANYBODY, *(f"{GROUP}{group}" for group in groups)}
    if not name.startswith(GROUP):
        words.add(name)
    grants = tuple(
        RoleGrant(sites=sites, role=rule.role)
        for rule in access
        if not words.isdisjoint(rule.users)
        for sites in rule.sites
    )
    return Viewer(name=name, grants=grants, cap=cap)


def highest_role(viewer: Viewer) -> WebRole | None:
    """Return the highest role that somebody has anywhere; None: none."""
    held = [ROLES.index(grant.role) for grant in viewer.grants]
    return ROLES[max(held)] if held else None


def rules_everything(viewer: Viewer) -> bool:
    """Return whether somebody is `admin` of every site, and so may revoke anybody's tokens."""
    return viewer.cap is None and any(grant.sites == "*" and grant.role == "admin" for grant in viewer.grants)


__all__ = ["GROUP", "highest_role", "rules_everything", "viewer_for"]
