"""Whether a signed build result counts: what it names, by which grant, and how old it may be. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from deploykit.errors import PolicyRefused
from deploykit.messages import BuildFinished
from deploykit.names import SiteName
from deploykit.settings.trust import GrantSettings
from deploykit.trust.allowed_signers import matches
from deploykit.trust.freshness import since


def judge_build(
    result: BuildFinished,
    grants: Iterable[GrantSettings],
    *,
    now: datetime,
    remember: timedelta,
    site: SiteName | None,
    skew: timedelta,
) -> GrantSettings:
    """Return the grant that lets a build result count; see `Policy.authorize_build`.

    Args:
        result: decoded from the body that `verify` accepted.
        grants: those for build results that its signer has.
        now: aware.
        remember: the age up to which results count.
        site: the site that it is to count for; None for any.
        skew: how far apart honest clocks may be.

    Raises:
        PolicyRefused: it does not count. The text may be shown to anybody.
    """
    if not result.number or result.repo is None or result.commit is None:
        missing = "number" if not result.number else "repository" if result.repo is None else "commit"
        raise PolicyRefused(f"it names no {missing}")
    for grant in grants:
        if (
            matches(grant.repos, result.repo)
            and matches(grant.jobs, result.job)
            and (site is None or matches(grant.sites, site))
        ):
            break
    else:
        raise PolicyRefused(f"its key may not report {result.job} of {result.repo}")
    age = since(now, result.time, result)
    if age < -skew:
        raise PolicyRefused("it claims to be from the future: compare the clocks (NTP)")
    if age > remember + skew:
        raise PolicyRefused(f"results count for {remember / timedelta(days=1):g} days")
    return grant


__all__ = ["judge_build"]
