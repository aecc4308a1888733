"""Whether people must sign a rollout, when its mandate holds, and what only an admin may ask for. Pure."""

from __future__ import annotations

from datetime import datetime

import attrs

from deploykit.errors import ActionRefused, UsageError
from deploykit.names import SiteName
from deploykit.operations.moments import parse_moment
from deploykit.settings.node import Settings
from deploykit.web.actions.asked import DeployAsked, RollbackAsked
from deploykit.web.actions.rights import require
from deploykit.web.viewer import Viewer


@attrs.frozen(kw_only=True, slots=True)
class SigningNeeded:
    """Whether people must sign a rollout.

    Args:
        signatures: how many; 0: the console's own key starts it.
        person: by keys that show presence.
        why: in words; empty where nobody must.
    """

    signatures: int = 0
    person: bool = False
    why: str = ""


@attrs.frozen(kw_only=True, slots=True)
class MandateTimes:
    """When a mandate holds; None: at once, and as late as nodes accept. `typed`: what was typed, for a plan's name."""

    not_before: datetime | None = None
    not_after: datetime | None = None
    typed: tuple[str, str] = ("", "")


def signing_needed(
    settings: Settings, viewer: Viewer, site: SiteName, *, approval: bool, retried: str = ""
) -> SigningNeeded:
    """Return whether people must sign a rollout that somebody asks for.

    Args:
        settings: of this machine.
        viewer: who asks.
        site: the site.
        approval: they want people to sign it.
        retried: the earlier rollout that this one repeats, where that ran under a mandate.
    """
    known = settings.sites.get(site)
    if known is not None and known.needs_mandate:
        return SigningNeeded(signatures=known.signatures, person=known.require == "person", why="the site asks for it")
    if retried:
        return SigningNeeded(signatures=1, why=f"rollout {retried} ran under a mandate, which was for it alone")
    if approval:
        return SigningNeeded(signatures=1, why="you asked for it")
    role = viewer.role(site)
    if role not in settings.web.console_signs or not viewer.may(site, "live"):
        return SigningNeeded(signatures=1, why=f"the console's key starts no rollout for the role {role}")
    return SigningNeeded()


def require_admin(viewer: Viewer, site: SiteName, asked: DeployAsked | RollbackAsked) -> None:
    """Accept what does not override a lock or leave builds out, and whoever may do that.

    Raises:
        ActionRefused: 403.
    """
    if asked.override_lock.strip():
        require(viewer, site, "admin", "override a lock")
    if isinstance(asked, DeployAsked) and asked.without_build:
        require(viewer, site, "admin", "leave out builds")


def mandate_times(asked: DeployAsked | RollbackAsked, now: datetime, needs: SigningNeeded) -> MandateTimes:
    """Return when the mandate holds that somebody asks for.

    Raises:
        ActionRefused: 422: they are no times, or nobody signs a mandate.
    """
    problems: dict[str, str] = {}
    found: dict[str, datetime] = {}
    typed = (asked.not_before.strip(), asked.not_after.strip())
    for field, text in zip(("not_before", "not_after"), typed, strict=True):
        if not text:
            continue
        try:
            found[field] = parse_moment(text, now)
        except UsageError as error:
            problems[field] = str(error)
    for field in found if not needs.signatures else ():
        problems[field] = (
            "times are of a mandate, and nobody must sign this rollout: ask for approval, or leave them out"
        )
    if problems:
        raise ActionRefused("; ".join(problems.values()), "nothing was done", status=422, **problems)
    return MandateTimes(not_before=found.get("not_before"), not_after=found.get("not_after"), typed=typed)


__all__ = ["MandateTimes", "SigningNeeded", "mandate_times", "require_admin", "signing_needed"]
