"""The reasons why an agent could obey no command, or why its reports would not be believed, before a deploy fails."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from deploykit.errors import DeploykitError
from deploykit.messages import BuildFinished, DeployRequested
from deploykit.names import SiteName
from deploykit.settings.node import Settings
from deploykit.settings.trust import GrantSettings, TrustSettings
from deploykit.trust.allowed_signers import AllowedSigners, matches
from deploykit.trust.certificatefile import load_certificate
from deploykit.trust.keyfiles import load_trusted
from deploykit.trust.policy import type_names
from deploykit.trust.sshsig import NAMESPACE


def trust_problems(settings: Settings, now: datetime) -> tuple[str, ...]:
    """Return why this node can obey no command for its sites; empty for a node without sites.

    Each problem is one line that says what to do.
    """
    if not settings.sites:
        return ()
    found = []
    if settings.signing_key is None:
        found.append("no signing_key is set: no asker can believe this node's reports (see `deploykit keys generate`)")
    found += certificate_problems(settings, now)
    if settings.trust.allowed_signers is None:
        return (*found, "no trust.allowed_signers is set: no command is obeyed (see `deploykit keys trust`)")
    try:
        signers = load_trusted(settings.trust)
    except DeploykitError as error:
        return (*found, f"no command is obeyed: {error}")
    lost = unreachable(settings.trust, signers, tuple(settings.sites), now)
    return (*found, *lost, *closed_for_ever(settings, signers, now))


def certificate_problems(settings: Settings, now: datetime) -> tuple[str, ...]:
    """Return why nobody believes this node's reports where its signing_key is a certificate's file."""
    path = settings.signing_key
    try:
        certificate = load_certificate(path) if path is not None else None
    except DeploykitError as error:
        return (f"signing_key: {error}",)
    if certificate is None:
        return ()
    if objection := certificate.objection(now):
        return (f"signing_key {path}: {objection}: no asker believes this node's reports (renew it, then reload)",)
    if settings.node not in certificate.names:
        names = ", ".join(certificate.names)
        return (f"signing_key {path}: {certificate} is for {names}, not for {settings.node}: sign it with -n NODE",)
    return ()


def unreachable(
    trust: TrustSettings, signers: AllowedSigners, sites: tuple[SiteName, ...], now: datetime
) -> Iterator[str]:
    """Yield a line where sites have no grant with a usable key that allows deploying them. Pure."""
    names = type_names(DeployRequested)
    grants = [grant for grant in trust.grants if any(name in grant.types for name in names)]
    if not grants:
        yield "no grant is for deploy.requested: no command is obeyed (add one to [[trust.grants]])"
        return
    useful = _with_key(grants, signers, now)
    if not useful:
        who = ", ".join(sorted({grant.principal for grant in grants}))
        yield f"no key in allowed_signers may sign as {who}: no command is obeyed (see `deploykit keys trust`)"
        return
    lost = [site for site in sites if not any(matches(grant.sites, site) for grant in useful)]
    if lost:
        yield f"no trusted key may deploy {', '.join(lost)}: correct `sites` in [[trust.grants]]"


def closed_for_ever(settings: Settings, signers: AllowedSigners, now: datetime) -> Iterator[str]:
    """Yield a line for each site that requires a build of a job whose result no trusted key may report. Pure."""
    names = type_names(BuildFinished)
    grants = [grant for grant in settings.trust.grants if any(name in grant.types for name in names)]
    useful = _with_key(grants, signers, now)
    for name, site in settings.sites.items():
        lost = [
            job
            for job in site.require_build
            if not any(
                matches(grant.repos, site.repo) and matches(grant.jobs, job) and matches(grant.sites, name)
                for grant in useful
            )
        ]
        if lost:
            yield (
                f"site {name} requires builds that no trusted key may report: {', '.join(lost)} of {site.repo} "
                "(grant build.finished with repos and jobs in [[trust.grants]]; see `deploykit keys trust`)"
            )


def _with_key(grants: list[GrantSettings], signers: AllowedSigners, now: datetime) -> list[GrantSettings]:
    """Return the grants whose principal some key that counts now may sign as."""
    lines = [
        line for line in signers.signers if not signers.is_revoked(line.key) and not line.objection(NAMESPACE, now)
    ]
    return [grant for grant in grants if any(matches(line.principals, grant.principal) for line in lines)]
