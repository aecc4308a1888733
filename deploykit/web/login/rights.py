"""What somebody who is logged in may do. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from deploykit.settings.web import WebAccessSettings
from deploykit.web.viewer import RoleGrant, Viewer

#: In `[[web.access]] users`: everybody who is logged in.
_ANYBODY: Final = "*"


def viewer_for(name: str, access: Sequence[WebAccessSettings]) -> Viewer:
    """Return what a name may do. Names are compared exactly; without any rule everybody may look at everything."""
    if not access:
        return Viewer(name=name, grants=(RoleGrant(sites="*", role="look"),))
    return Viewer(
        name=name,
        grants=tuple(
            RoleGrant(sites=sites, role=rule.role)
            for rule in access
            if name in rule.users or _ANYBODY in rule.users
            for sites in rule.sites
        ),
    )


__all__ = ["viewer_for"]
