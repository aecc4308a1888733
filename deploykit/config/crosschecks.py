"""Settings -> the mistakes that no single value shows: what does not go together, would hang, or would never run.

Pure. `config` asks it once everything that can be read was read, so that one run tells of all mistakes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import DeploykitError, SettingsError
from deploykit.messages.topics import TopicMap
from deploykit.names import SiteName
from deploykit.settings.node import Settings
from deploykit.settings.site import SiteSettings
from deploykit.settings.trust import TrustSettings
from deploykit.system.users import AS_OWNER

_VERSIONS: Final = ("1.2", "1.1", "1.0")
#: Topics that may be empty: then another one is meant.
_OPTIONAL_TOPICS: Final = frozenset({"build_success", "build_failure"})


def mistakes(settings: Settings, *, repositories: Collection[str] = (), grants: bool = True) -> list[str]:
    """List the mistakes, each with its path and what was expected.

    Args:
        settings: as they were read, or what is left of them without what could not be read.
        repositories: names of more repositories that are in the file, although they cannot be read.
        grants: whether the grants are all there, so that they can be told by their place.
    """
    return [
        *_sites(settings, repositories),
        *(_trust(settings.trust) if grants else ()),
        *_repositories(settings),
        *_topics(settings.topics),
        *_broker_versions(settings),
        *_least(settings),
    ]


def _sites(settings: Settings, repositories: Collection[str]) -> Iterator[str]:
    paths: dict[Path, SiteName] = {}
    for name, site in settings.sites.items():
        if site.repo not in settings.repositories and site.repo not in repositories:
            yield f"sites.{name}.repo: {site.repo!r} is not in [repositories]"
        if not site.path.is_absolute():
            yield f"sites.{name}.path: expected an absolute path, not {str(site.path)!r}"
        if site.path in paths:
            yield f"sites.{name}.path: {site.path} is already the path of {paths[site.path]}"
        paths[site.path] = name
        yield from (f"sites.{name}.release.{mistake}" for mistake in site_mistakes(site.release))


def warnings(settings: Settings, user: str = "") -> list[str]:
    """List what is right by itself and will be refused in use, as far as the settings show it.

    Args:
        user: who deploykit runs as, where that is known.
    """
    return [
        f"sites.{name}.release.{warning}"
        for name, site in settings.sites.items()
        for warning in _site_warnings(site.release, user)
    ]


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


def site_mistakes(settings: SiteSettings) -> Iterator[str]:
    """List the mistakes in one site's release settings: scripts there are none of, which would never mean anything."""
    named = {"required": settings.required, "timeouts": settings.timeouts, "at_crash": settings.at_crash}
    if any(named.values()):
        from deploykit.release.model import SCRIPTS

        for key, steps in named.items():
            for step in steps:
                if step not in SCRIPTS:
                    yield f"{key}: expected some of {', '.join(SCRIPTS)}, not {step!a}"
    if settings.health_url:
        from deploykit.release.health import is_address

        if not is_address(settings.health_url):
            yield "health_url: expected an http or https address"
    for name, value in settings.environment.items():
        if not name or "=" in name or "\0" in name + value:
            yield f"environment: {name!a} cannot be a variable"
    if settings.run_as == AS_OWNER and not settings.owner:
        yield f'run_as: "{AS_OWNER}" needs an owner (a user of that name is meant by its number)'
    if settings.umask is not None and not 0 <= settings.umask <= 0o777:
        yield f"umask: expected 0 to 0o777, not {settings.umask:#o}"


def _trust(trust: TrustSettings) -> tuple[str, ...]:
    if trust == TrustSettings():
        return ()  # and nothing is loaded that only signatures need
    from deploykit.trust.policy import Policy

    try:
        Policy.from_settings(trust)
    except SettingsError as error:
        return error.problems
    return ()


def _repositories(settings: Settings) -> Iterator[str]:
    """Find origins that are not allowed, and directories that cannot be, or that two checkouts would write to."""
    if not settings.repositories:
        return  # and nothing is loaded that only mirrors need
    from deploykit.checkouts import rule_of
    from deploykit.git.transport.address import parse_origin_url
    from deploykit.mirror.refplan import matches_nothing

    targets: dict[tuple[Path, str], str] = {}
    for name, repository in settings.repositories.items():
        try:
            parse_origin_url(repository.url, allow_http=repository.mirror.allow_http)
        except DeploykitError as error:
            yield f"repositories.{name}.url: {error}"
        for key, patterns in (("refs", repository.mirror.refs), ("signed", repository.mirror.signed)):
            for pattern in filter(matches_nothing, patterns):
                yield f"repositories.{name}.mirror.{key}: expected full ref names, as refs/heads/*, not {pattern!a}"
        if repository.mirror.signed and repository.mirror.allowed_signers is None:
            yield f"repositories.{name}.mirror.signed: needs allowed_signers, or each of these refs is refused"
        for at, checkout in enumerate(repository.checkouts):
            where = f"repositories.{name}.checkouts[{at}]"
            try:
                rule = rule_of(checkout)
            except DeploykitError as error:
                yield f"{where}: {error}"
                continue
            if checkout.umask is not None and not 0 <= checkout.umask <= 0o777:
                yield f"{where}.umask: expected 0 to 0o777, not {checkout.umask:#o}"
            for pattern in filter(matches_nothing, checkout.refs):
                yield f"{where}.refs: expected full ref names, as refs/heads/*, not {pattern!a}"
            other = targets.setdefault((rule.root, rule.directory), where)
            if rule.patterns and other != where:
                yield f"{where}.target: {checkout.target} is already the target of {other}"


def _topics(topics: TopicMap) -> Iterator[str]:
    named = {f.name: getattr(topics, f.name) for f in attrs.fields(TopicMap) if f.name != "notices"}
    for name, destination in {**named, **{f"notices.{k}": v for k, v in topics.notices.items()}}.items():
        if not destination.isprintable() or (destination == "" and name not in _OPTIONAL_TOPICS):
            yield f"topics.{name}: expected a destination, e.g. /topic/deploykit.source"


def _broker_versions(settings: Settings) -> Iterator[str]:
    offered = settings.broker.versions
    if not offered or not set(offered) <= set(_VERSIONS):
        yield f"broker.versions: expected some of {', '.join(_VERSIONS)}"


def _least(settings: Settings) -> Iterator[str]:
    """Find numbers that would make a daemon wait for ever, or go round and round without a pause."""
    least: tuple[tuple[str, float, float], ...] = (
        ("reconcile_every", settings.reconcile_every, 1),
        ("broker.connect_timeout", settings.broker.connect_timeout, 0.1),
        ("broker.window", settings.broker.window, 1),
        ("broker.window_bytes", settings.broker.window_bytes, 1),
        ("broker.in_flight", settings.broker.in_flight, 1),
        ("broker.max_frame", settings.broker.max_frame, 1),
        ("outbox.window", settings.outbox.window, 1),
        ("outbox.max_attempts", settings.outbox.max_attempts, 1),
        ("outbox.rescan", settings.outbox.rescan, 0.1),
    )
    yield from (f"{path}: expected at least {limit}, not {value:g}" for path, value, limit in least if value < limit)


__all__ = ["mistakes", "site_mistakes", "warnings"]
