"""Which role an action needs on a site. Pure."""

from __future__ import annotations

from deploykit.errors import ActionRefused
from deploykit.settings.web import WebRole
from deploykit.web.viewer import Viewer


def require(viewer: Viewer, site: str, role: WebRole, what: str) -> None:
    """Accept a viewer who has a role on a site, or a higher one.

    Args:
        what: the action, as in "may not WHAT".

    Raises:
        ActionRefused: 404 where they may not even look: they do not learn that the site exists; else 403.
    """
    if not viewer.sees(site):
        raise ActionRefused(f"there is no site {site[:80]!a}", "see the list of sites", status=404)
    if not viewer.may(site, role):
        raise ActionRefused(
            f"{viewer.name or 'nobody'} may not {what}: the role {role} is needed on site {site}",
            "[[web.access]] in the console's settings gives it",
        )


__all__ = ["require"]
