"""Whether people must sign a rollout, when its mandate holds, and what only an admin may ask for. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import attrs

from deploykit.errors import ActionRefused, UsageError
from deploykit.messages import SiteState
from deploykit.names import NodeName, SiteName
from deploykit.operations.moments import parse_moment
from deploykit.operations.nodes import shortened
from deploykit.operations.siteasks import SiteAsks
from deploykit.settings.node import Settings
from deploykit.trust.mandate import Requirement
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
        asks: what the site asks of the mandate; None where it asks for none.
    """

    signatures: int = 0
    person: bool = False
    why: str = ""
    asks: Requirement | None = None


@attrs.frozen(kw_only=True, slots=True)
class MandateTimes:
    """When a mandate holds; None: at once, and as late as nodes accept. `typed`: what was typed, for a plan's name."""

    not_before: datetime | None = None
    not_after: datetime | None = None
    typed: tuple[str, str] = ("", "")


def signing_needed(
    settings: Settings,
    viewer: Viewer,
    site: SiteName,
    states: Mapping[NodeName, SiteState],
    *,
    approval: bool,
    retried: str = "",
) -> SigningNeeded:
    """Return whether people must sign a rollout that somebody asks for.

    Args:
        settings: of this machine.
        viewer: who asks.
        site: the site.
        states: the site as those nodes describe it now that the rollout is for.
        approval: they want people to sign it.
        retried: the earlier rollout that this one repeats, where that ran under a mandate.
    """
    asks = SiteAsks.of(settings, site, states)
    if (wanted := asks.requirement) is not None:
        return SigningNeeded(
            signatures=wanted.signatures, person=wanted.require == "person", why=_who_asks(asks), asks=wanted
        )
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


def mandate_times(asked: DeployAsked | RollbackAsked, now: datetime) -> MandateTimes:
    """Return when the mandate holds that somebody asks for.

    Raises:
        ActionRefused: 422: they are no times.
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
    if problems:
        raise ActionRefused("; ".join(problems.values()), "nothing was done", status=422, **problems)
    return MandateTimes(not_before=found.get("not_before"), not_after=found.get("not_after"), typed=typed)


def require_mandate(times: MandateTimes, needs: SigningNeeded) -> None:
    """Accept times of a mandate only where somebody signs one.

    Raises:
        ActionRefused: 422: nobody does.
    """
    if needs.signatures:
        return
    problem = "times are of a mandate, and nobody must sign this rollout: ask for approval, or leave them out"
    typed = dict(zip(("not_before", "not_after"), times.typed, strict=True))
    if problems := {field: problem for field, text in typed.items() if text}:
        raise ActionRefused("; ".join(problems.values()), "nothing was done", status=422, **problems)


def _who_asks(asks: SiteAsks) -> str:
    if not asks.nodes:
        return "the site asks for it"
    here = f"ask for {asks.here}" if asks.here is not None else "do not"
    return f"the site asks for it, as {shortened(asks.nodes)} {_say(asks.nodes)}; the settings of this console {here}"


def _say(nodes: Sequence[NodeName]) -> str:
    return "says" if len(nodes) == 1 else "say"


__all__ = ["MandateTimes", "SigningNeeded", "mandate_times", "require_admin", "require_mandate", "signing_needed"]
