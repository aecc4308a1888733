"""Whether a key has a right for a site, by which grant, and why not: judged by the functions that decide. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from deploykit.messages import BuildFinished, DeployReported
from deploykit.names import SiteName
from deploykit.settings.node import Settings
from deploykit.settings.trust import GrantSettings
from deploykit.trust.allowed_signers import matches
from deploykit.trust.mandate import Requirement
from deploykit.trust.rights import (
    APPROVE,
    DEPLOY,
    PHASED,
    RIGHTS,
    RUN,
    WITHOUT_BUILD,
    covers,
    granted,
    message_kinds,
    type_names,
)
from deploykit.trust.signature import Signer

#: The rights that are always explained, in this order; others where a grant names them.
_SHOWN: Final = (
    "deploy.requested",
    RUN,
    "rollout.approved",
    "rollout.abort",
    WITHOUT_BUILD,
    "site.locked",
    "lock.release",
    "lock.override",
    "node.queried",
)


@attrs.frozen(kw_only=True, slots=True)
class ExplainedRight:
    """Whether a key has one right for one site.

    Args:
        right: the message type or right, as grants name it.
        site: the site; empty where the settings have none: then `why` names the sites of the grants.
        allowed: the key has it.
        principals, grants: as whom, by which grants (their numbers in the settings).
        why: the reason where it is not allowed; what else is asked for where it is.
    """

    right: str
    site: str
    allowed: bool
    principals: tuple[str, ...] = ()
    grants: tuple[int, ...] = ()
    why: str = ""


def explain_rights(
    settings: Settings, signer: Signer, *, certified: bool = False, problem: str = ""
) -> tuple[ExplainedRight, ...]:
    """Return whether a key has each right, for each site.

    Args:
        settings: of the node; without sites each right is explained once, for the sites that grants name.
        signer: the key, and its principals.
        certified: the key is not known: an authority may certify one of any kind.
        problem: why nothing that it signs counts; empty where it may count.
    """
    return tuple(
        _right(settings, signer, right, site, certified=certified, problem=problem)
        for site in (settings.sites or ("",))
        for right in _rights(settings.trust.grants)
    )


def _rights(grants: Sequence[GrantSettings]) -> tuple[str, ...]:
    """Return the rights to explain: the usual ones, then what else grants name, by the short name."""
    short = {name: type_names(kind)[1] for kind in message_kinds() for name in type_names(kind)}
    named = (short.get(name, name) for grant in grants for name in grant.types)
    return tuple(dict.fromkeys((*_SHOWN, *named)))


def _names(right: str) -> tuple[str, ...]:
    """Return all names of a right in grants."""
    if right in RIGHTS:
        return (right,)
    return next((names for kind in message_kinds() if right in (names := type_names(kind))), (right,))


def _right(
    settings: Settings, signer: Signer, right: str, site: str, *, certified: bool, problem: str
) -> ExplainedRight:
    names = _names(right)
    every = settings.trust.grants
    naming = [grant for grant in every if set(names).intersection(grant.types)]
    own = granted(naming, names, signer)
    fitting = [grant for grant in own if not site or covers(grant, site, settings.site_repos)]
    why = problem
    if not why and not naming:
        why = f"no grant is for {right}"
    elif not why and not own:
        why = f"granted only to {', '.join(dict.fromkeys(grant.principal for grant in naming))}"
    elif not why and not fitting:
        why = "; ".join(_elsewhere(settings, grant, site) for grant in own)
    elif not why:
        why = _not_counted(settings, signer, names, site, certified=certified)
    if why:
        return ExplainedRight(right=right, site=site, allowed=False, why=why)
    return ExplainedRight(
        right=right,
        site=site,
        allowed=True,
        principals=tuple(dict.fromkeys(grant.principal for grant in fitting)),
        grants=tuple(at for at, grant in enumerate(every) if grant in fitting),
        why="; ".join(dict.fromkeys(_limits(settings, fitting, names, right, site))),
    )


def _elsewhere(settings: Settings, grant: GrantSettings, site: str) -> str:
    """Return why a grant does not fit a site."""
    at = f"trust.grants[{settings.trust.grants.index(grant)}]"
    if not matches(grant.sites, site):
        return f"{at} is for sites {', '.join(grant.sites)}"
    return f"{at} is for repositories {', '.join(grant.repos)}, not {', '.join(settings.site_repos[SiteName(site)])}"


def _not_counted(settings: Settings, signer: Signer, names: tuple[str, ...], site: str, *, certified: bool) -> str:
    """Return why a signature of this key would not count for a site, although it is granted."""
    wanted = settings.sites.get(SiteName(site))
    if names != APPROVE or wanted is None or wanted.require != "person":
        return ""
    if certified or signer.key_type.startswith("sk-"):
        return ""
    return f"the site asks for a person, and a key of type {signer.key_type} shows none"


def _limits(
    settings: Settings, grants: Sequence[GrantSettings], names: tuple[str, ...], right: str, site: str
) -> Iterator[str]:
    """Yield what else is asked for where a right is granted."""
    wanted = settings.sites.get(SiteName(site))
    if not site:
        yield f"for sites {', '.join(dict.fromkeys(pattern for grant in grants for pattern in grant.sites))}"
    if grants and all(grant.phases for grant in grants) and PHASED.intersection(names):
        yield f"in phases {', '.join(dict.fromkeys(phase for grant in grants for phase in grant.phases))}"
    if names == DEPLOY and wanted is not None and wanted.needs_mandate:
        yield f"inside a mandate of {Requirement.of(wanted)}"
    if names == (RUN,):
        yield "inside a mandate"
    if names == type_names(BuildFinished):
        for grant in grants:
            yield f"jobs {', '.join(grant.jobs) or 'none'} of {', '.join(grant.repos) or 'no repository'}"
    if names == type_names(DeployReported):
        for grant in grants:
            yield f"for nodes {', '.join(grant.speaks_for) or 'none but its own'}"


__all__ = ["ExplainedRight", "explain_rights"]
