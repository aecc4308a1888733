"""Who looks at the console, and at which sites they may look. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

import attrs

from deploykit.settings.web import ROLES, WebRole


@attrs.frozen(kw_only=True, slots=True)
class RoleGrant:
    """A role on all sites that match a pattern; `*` stands for any text."""

    sites: str
    role: WebRole


@attrs.frozen(kw_only=True, slots=True)
class RoleCap:
    """The most that an API token may do: a role, on the sites that match a pattern. It never gives anything."""

    role: WebRole
    sites: tuple[str, ...]

    def covers(self, site: str) -> bool:
        """Return whether a site matches a pattern."""
        return any(fnmatchcase(site, pattern) for pattern in self.sites)


@attrs.frozen(kw_only=True, slots=True)
class Viewer:
    """A person or program that is logged in.

    Args:
        name: as people know them; empty where nobody is logged in.
        grants: what they may do; none: nothing at all.
        cap: of the token they have shown; None: nothing limits the grants.
    """

    name: str = ""
    grants: tuple[RoleGrant, ...] = ()
    cap: RoleCap | None = None

    def role(self, site: str) -> WebRole | None:
        """Return the highest role on a site; None: they may not even look."""
        held = [ROLES.index(grant.role) for grant in self.grants if fnmatchcase(site, grant.sites)]
        if not held or (self.cap is not None and not self.cap.covers(site)):
            return None
        highest = max(held)
        return ROLES[highest if self.cap is None else min(highest, ROLES.index(self.cap.role))]

    def may(self, site: str, role: WebRole) -> bool:
        """Return whether they have a role on a site, or a higher one."""
        held = self.role(site)
        return held is not None and ROLES.index(held) >= ROLES.index(role)

    def may_somewhere(self, role: WebRole) -> bool:
        """Return whether they have a role, or a higher one, on any site at all."""
        return any(ROLES.index(grant.role) >= ROLES.index(role) for grant in self.grants)

    def sees(self, site: str) -> bool:
        """Return whether they may look at a site."""
        return self.role(site) is not None

    @property
    def sees_all(self) -> bool:
        """Whether they may look at every site, and so at what belongs to none: notices, unknown repositories."""
        everywhere = self.cap is None or "*" in self.cap.sites
        return everywhere and any(grant.sites == "*" for grant in self.grants)

    def visible(self, sites: Iterable[str]) -> tuple[str, ...]:
        """Return those of the sites at which they may look, in their order."""
        return tuple(site for site in sites if self.sees(site))


#: Whoever reaches a console that has no login: on loopback only.
EVERYBODY: Final = Viewer(name="local", grants=(RoleGrant(sites="*", role="admin"),))
