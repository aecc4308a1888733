"""The reasons why an agent could obey no command, or why its reports would not be believed, before a deploy fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from deploykit.errors import DeploykitError
from deploykit.messages import BuildFinished
from deploykit.settings.node import Settings
from deploykit.settings.trust import GrantSettings, TrustSettings
from deploykit.trust.allowed_signers import AllowedSigner, AllowedSigners, matches
from deploykit.trust.approval import people
from deploykit.trust.certificatefile import load_certificate
from deploykit.trust.keyfiles import load_trusted
from deploykit.trust.keyformat import ED25519, key_type, parse_key
from deploykit.trust.mandate import Requirement
from deploykit.trust.rights import APPROVE, DEPLOY, RUN, covers, type_names
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
    return (
        *found,
        *unreachable(settings, signers, now),
        *closed_for_ever(settings, signers, now),
        *never_approved(settings, signers, now),
    )


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


def unreachable(settings: Settings, signers: AllowedSigners, now: datetime) -> Iterator[str]:
    """Yield a line where sites have no grant with a usable key that allows deploying them. Pure."""
    grants = _naming(settings.trust, (*DEPLOY, RUN))
    if not grants:
        yield "no grant is for deploy.requested: no command is obeyed (add one to [[trust.grants]])"
        return
    useful = _with_key(grants, signers, now)
    if not useful:
        who = ", ".join(sorted({grant.principal for grant in grants}))
        yield f"no key in allowed_signers may sign as {who}: no command is obeyed (see `deploykit keys trust`)"
        return
    repos = settings.site_repos
    lost = [site for site in settings.sites if not any(covers(grant, site, repos) for grant in useful)]
    if lost:
        yield f"no trusted key may deploy {', '.join(lost)}: correct `sites` in [[trust.grants]]"


def closed_for_ever(settings: Settings, signers: AllowedSigners, now: datetime) -> Iterator[str]:
    """Yield a line for each site that requires a build of a job whose result no trusted key may report. Pure."""
    useful = _with_key(_naming(settings.trust, type_names(BuildFinished)), signers, now)
    for name, site in settings.sites.items():
        for repo in site.repos:
            lost = [
                job
                for job in site.jobs_of(repo)
                if not any(
                    matches(grant.repos, repo) and matches(grant.jobs, job) and matches(grant.sites, name)
                    for grant in useful
                )
            ]
            if not lost:
                continue
            yield (
                f"site {name} requires builds that no trusted key may report: {', '.join(lost)} of {repo} "
                "(grant build.finished with repos and jobs in [[trust.grants]]; see `deploykit keys trust`)"
            )


def never_approved(settings: Settings, signers: AllowedSigners, now: datetime) -> Iterator[str]:
    """Yield a line for each site whose mandates could never be signed by enough people who may. Pure."""
    grants = _naming(settings.trust, APPROVE)
    for name, site in settings.sites.items():
        if not site.needs_mandate:
            continue
        useful = [grant.principal for grant in grants if covers(grant, name, settings.site_repos)]
        person = site.require == "person"
        keys = [_keys_of(principal, signers, now, person=person) for principal in dict.fromkeys(useful)]
        enough = people(keys)
        if enough < site.signatures:
            kinds = " (keys on security keys, sk-…)" if person else ""
            yield (
                f"site {name} asks for the approval of {Requirement.of(site)}{kinds}, and trusted keys can give that "
                f"of {enough or 'nobody'} (grant rollout.approved in [[trust.grants]]; see `deploykit keys trust`)"
            )


def _naming(trust: TrustSettings, names: Sequence[str]) -> list[GrantSettings]:
    """Return the grants that name one of these types or rights."""
    return [grant for grant in trust.grants if any(name in grant.types for name in names)]


def _with_key(grants: list[GrantSettings], signers: AllowedSigners, now: datetime) -> list[GrantSettings]:
    """Return the grants whose principal some key that counts now may sign as."""
    lines = _counting(signers, now)
    return [grant for grant in grants if any(matches(line.principals, grant.principal) for line in lines)]


def _keys_of(principal: str, signers: AllowedSigners, now: datetime, *, person: bool) -> list[str]:
    """Return names of the keys that may sign as a principal now; with `person` of those that show presence.

    An authority may certify a key of any kind for each principal that it may name.
    """
    return [
        f"{principal} by line {line.line}" if line.authority else line.key.hex()
        for line in _counting(signers, now)
        if matches(line.principals, principal)
        and (not person or line.authority or key_type(line.key).startswith("sk-"))
    ]


def _counting(signers: AllowedSigners, now: datetime) -> list[AllowedSigner]:
    return [
        line
        for line in signers.signers
        if not signers.is_revoked(line.key)
        and not line.objection(NAMESPACE, now)
        and not (key_type(line.key) != ED25519 and signers.rules.never(parse_key(line.key)))
    ]
