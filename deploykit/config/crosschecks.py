"""Settings -> what no family sees by itself: what does not go together, and what only higher rooms can judge.

Pure. `config.load` asks once everything that can be read was read, so that one run finds all problems. A room is
imported only where its settings are in use.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from deploykit.errors import DeploykitError
from deploykit.names import RepoName, SiteName
from deploykit.settings.access import AccessSettings
from deploykit.settings.jenkins import JenkinsSettings
from deploykit.settings.mirror import RepositorySettings
from deploykit.settings.node import Settings
from deploykit.settings.service import parse_listen_address
from deploykit.settings.site import SiteSettings
from deploykit.settings.webhook import WebhookSettings
from deploykit.system.users import AS_OWNER


def problems(settings: Settings, *, repositories: Collection[str] = ()) -> tuple[str, ...]:
    """Return the problems that need several families, or rooms above `settings`, each with its path.

    Args:
        settings: as they were read, or what is left of them without what could not be read.
        repositories: names of further repositories that are in the file, although they cannot be read.
    """
    return (
        *_sites(settings, repositories),
        *_grants(settings),
        *_repositories(settings.repositories),
        *_jobs(settings.jenkins),
        *_webhooks(settings.webhook),
    )


def warnings(settings: Settings, user: str = "") -> list[str]:
    """Return what is right by itself and will be refused in use, as far as the settings show it.

    Args:
        settings: as they were read.
        user: who deploykit runs as, where that is known.
    """
    found = [
        f"sites.{name}.release.{warning}"
        for name, site in settings.sites.items()
        for warning in _site_warnings(site.release, user)
    ]
    found += [
        f"sites.{name}.require_build: {job!r} is the name of one job, not a pattern: no build of another opens the gate"
        for name, site in settings.sites.items()
        for job in sorted({*site.require_build, *(job for jobs in site.require_build_of.values() for job in jobs)})
        if "*" in job or "?" in job
    ]
    found += _checkout_warnings(settings.repositories)
    found += _webhook_warnings(settings.webhook)
    found += _signing_warnings(settings)
    found += _notify_warnings(settings)
    found += _access_warnings(settings.access)
    found += [f"facts.{warning}" for warning in settings.facts.warnings()]
    if settings.trust.grants:
        from deploykit.trust.grants import grant_warnings

        found += grant_warnings(settings.trust.grants)
    return found


def _signing_warnings(settings: Settings) -> Iterator[str]:
    """Find a page on which people sign whose signatures do not count here, or beside which another one still counts."""
    origin, trust = settings.web.sign_origin, settings.trust
    if not origin or trust.allowed_signers is None:
        return
    if origin not in trust.origins or urlsplit(origin).hostname not in trust.rp_ids:
        yield (
            f"trust.origins: no signature that is made at web.sign_origin counts here: add {origin!r}, "
            f"and {urlsplit(origin).hostname!r} to trust.rp_ids"
        )
    own = settings.web.url.rstrip("/")
    if own in trust.origins:
        yield f"trust.origins: {own!r} counts beside web.sign_origin: the console's own page may ask for signatures too"


def _site_warnings(settings: SiteSettings, user: str) -> Iterator[str]:
    """Find scripts of the tree that run as one user and belong to another, who could rewrite them: none would run."""
    owner, who = settings.owner.partition(":")[0], settings.run_as.partition(":")[0] or user
    if owner in ("", "root", "0", who) or settings.run_as == AS_OWNER:
        return
    if settings.scripts and not settings.scripts.startswith("/"):
        yield (
            f"run_as: releases with scripts are refused: {who or 'who deploykit runs as'} would run what {owner} "
            f'(owner) can rewrite (set run_as = "{AS_OWNER}"; or scripts = "", or a directory {owner} cannot change)'
        )


def _sites(settings: Settings, repositories: Collection[str]) -> Iterator[str]:
    """Find sites of an unknown repository, and sites that share a directory."""
    paths: dict[Path, SiteName] = {}
    for name, site in settings.sites.items():
        for repo in site.repos:
            if repo not in settings.repositories and repo not in repositories:
                where = f"parts.{repo}" if site.repo is None else "repo"
                yield f"sites.{name}.{where}: {repo!r} is not in [repositories]"
        if site.path in paths:
            yield f"sites.{name}.path: {site.path} is already the path of {paths[site.path]}"
        paths[site.path] = name


def _grants(settings: Settings) -> tuple[str, ...]:
    if not settings.trust.grants:
        return ()
    from deploykit.trust.grants import grant_problems

    return tuple(grant_problems(settings.trust.grants))


def _repositories(repositories: Mapping[RepoName, RepositorySettings]) -> Iterator[str]:
    """Find origins that are not allowed, and directories that cannot be, or that two checkouts would write to."""
    if not repositories:
        return
    from deploykit.git.transport.address import parse_origin_url
    from deploykit.mirror.refplan import matches_nothing

    for name, repository in repositories.items():
        try:
            parse_origin_url(repository.url, allow_http=repository.mirror.allow_http)
        except DeploykitError as error:
            yield f"repositories.{name}.url: {error}"
        for key, patterns in (("refs", repository.mirror.refs), ("signed", repository.mirror.signed)):
            for pattern in filter(matches_nothing, patterns):
                yield f"repositories.{name}.mirror.{key}: {_full_names(pattern)}"
    yield from _checkouts(repositories)


def _checkouts(repositories: Mapping[RepoName, RepositorySettings]) -> Iterator[str]:
    from deploykit.checkouts.rules import CheckoutRule, is_inside, rule_of
    from deploykit.mirror.refplan import matches_nothing

    targets: dict[tuple[Path, str], str] = {}
    before: list[tuple[str, CheckoutRule]] = []
    for name, repository in repositories.items():
        for at, checkout in enumerate(repository.checkouts):
            where = f"repositories.{name}.checkouts[{at}]"
            try:
                rule = rule_of(checkout)
            except DeploykitError as error:
                yield f"{where}: {error}"
                continue
            for pattern in filter(matches_nothing, checkout.refs):
                yield f"{where}.refs: {_full_names(pattern)}"
            if not rule.patterns:
                continue  # the mirror alone, whatever it has for a target
            other = targets.setdefault((rule.root, rule.directory), where)
            if other != where:
                yield f"{where}.target: {checkout.target} is already the target of {other}"
            for there, its in before:
                if is_inside(rule, its) or is_inside(its, rule):
                    inner, outer = (where, there) if is_inside(rule, its) else (there, where)
                    yield f"{where}.target: {inner} would be inside {outer}, whose directory is replaced as a whole"
            before.append((where, rule))


def _checkout_warnings(repositories: Mapping[RepoName, RepositorySettings]) -> Iterator[str]:
    """Find checkouts that are kept in another way than the original's mode of that name, or may be inside another."""
    yield from _checkouts_inside(repositories)
    for name, repository in repositories.items():
        for at, checkout in enumerate(repository.checkouts):
            if checkout.mode == "dangerous":
                yield (
                    f"repositories.{name}.checkouts[{at}].mode: dangerous is kept as trusting: no clone is written to, "
                    f'and readers have to look in {checkout.target} (say mode = "trusting" when they do)'
                )


def _checkouts_inside(repositories: Mapping[RepoName, RepositorySettings]) -> Iterator[str]:
    """Find checkouts that would be inside the directory of another one's ref, if there is a ref of that name."""
    if not any(repository.checkouts for repository in repositories.values()):
        return
    from deploykit.checkouts.rules import is_inside, rule_of

    rules = {
        f"repositories.{name}.checkouts[{at}]": rule_of(checkout)
        for name, repository in repositories.items()
        for at, checkout in enumerate(repository.checkouts)
    }
    for inner, rule in rules.items():
        for outer, other in rules.items():
            if is_inside(rule, other, for_some_ref=True):
                yield (
                    f"{inner}.target: inside a directory that {outer} may show, and then replaces as a whole "
                    "(choose a target outside of it)"
                )


def _jobs(settings: JenkinsSettings) -> Iterator[str]:
    """Find patterns that match no ref, and regular expressions that cannot be used."""
    if not settings.jobs:
        return
    from deploykit.config.refpattern import compile_ref_pattern
    from deploykit.mirror.refplan import matches_nothing

    for at, job in enumerate(settings.jobs):
        for key, patterns in (("refs", job.refs), ("ignore", job.ignore)):
            for pattern in filter(matches_nothing, patterns):
                yield f"jenkins.jobs[{at}].{key}: {_full_names(pattern)}"
        try:
            compile_ref_pattern(job.ignore_refs)
        except DeploykitError as error:
            yield f"jenkins.jobs[{at}].ignore_refs: {error}"


def _webhooks(settings: WebhookSettings) -> Iterator[str]:
    """Find patterns that match no ref."""
    if not settings.sources:
        return
    from deploykit.mirror.refplan import matches_nothing

    for name, source in settings.sources.items():
        for pattern in filter(matches_nothing, source.refs):
            yield f"webhook.sources.{name}.refs: {_full_names(pattern)}"


def _webhook_warnings(settings: WebhookSettings) -> Iterator[str]:
    """Find secrets and tokens that would cross a network as plain text."""
    if settings.sources and not parse_listen_address(settings.listen).only_here:
        yield (
            f"webhook.listen: {settings.listen} can be reached by other machines, and speaks no TLS "
            "(listen on 127.0.0.1 or a UNIX socket, behind a proxy that speaks it)"
        )


def _notify_warnings(settings: Settings) -> Iterator[str]:
    """Find lines that would not say whom to believe, or where to sign."""
    channels = settings.notify.channels
    if channels and settings.trust.allowed_signers is None:
        yield "notify: without trust.allowed_signers nothing is verified, and each line says so"
    if not settings.notify.console and any("approval" in each.events for each in channels.values()):
        yield "notify.console: not set: a line about an approval carries no link to where it is given"


def _access_warnings(settings: AccessSettings) -> Iterator[str]:
    """Find sites of haproxy of which nobody could say whether a reload was carried out."""
    for name, site in settings.sites.items():
        if site.kind == "haproxy" and site.master is None:
            yield (
                f"access.sites.{name}.master: not set: a reload that haproxy accepts and does not carry out counts as "
                "done (start haproxy with -W -S /run/haproxy-master.sock, and name that socket here)"
            )


def _full_names(pattern: str) -> str:
    return f"expected full ref names, as refs/heads/*, not {pattern!a}"


__all__ = ["problems", "warnings"]
