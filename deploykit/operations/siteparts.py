"""What a deploy of a site of several repositories puts live: the refs that are named, and what is live of the others.

Rules:

* A repository that is not named stays as it is live. Where nodes differ in it nobody guesses: it has to be named.
* The origin of each that is named is asked once which commit its ref stands for.
* Of which repositories a site is made the settings say, else the nodes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from deploykit.errors import UsageError
from deploykit.fleet.plan import Target
from deploykit.messages import SitePart, SiteState
from deploykit.messages.site import named
from deploykit.names import NodeName, ObjectId, RepoName, parse_site_name
from deploykit.operations.deploy import known_repository, resolve_ref
from deploykit.operations.nodes import shortened
from deploykit.operations.perrepo import by_repo
from deploykit.settings.node import Settings

_NOBODY: Final[Mapping[NodeName, SiteState]] = {}


def refs_by_repo(
    settings: Settings, site: str, texts: Sequence[str], *, repo: str | None = None, option: str = "ref"
) -> Mapping[RepoName, str] | None:
    """Return the refs that are asked for of each repository; None where the site is made of one.

    A site that the settings do not have is made of several where `NAME=` stands before a ref, and the settings have a
    repository of that name.

    Args:
        settings: of the machine that asks.
        site: the site's name.
        texts: as they were given: `v1`, or `app=v3` for each repository that changes.
        repo: what `--repo` names, for a site of one.
        option: which one they were given with, for the text of errors.

    Raises:
        UsageError: a ref names no repository, or one that the site does not have, or one that another names, too.
    """
    chosen = settings.sites.get(parse_site_name(site))
    if chosen is None:
        first, _, rest = texts[0].partition("=")
        several = bool(rest) and first in settings.repositories
        if not several and len(texts) == 1:
            return None
        made_of: tuple[RepoName, ...] = ()
    elif not chosen.parts:
        return None
    else:
        made_of = chosen.repos
    if repo is not None:
        raise UsageError(f"site {site} is made of several repositories", f"leave --repo out: --{option} {repo}=REF")
    return by_repo(option, texts, made_of)


def names_all(settings: Settings, site: str, refs: Mapping[RepoName, str]) -> bool:
    """Return whether refs name every repository of a site, as far as the settings say: then no node is asked."""
    chosen = settings.sites.get(parse_site_name(site))
    return chosen is not None and set(chosen.repos) <= refs.keys()


def target_asked(
    settings: Settings,
    site: str,
    ref: str | Mapping[RepoName, str],
    *,
    commit: str | Mapping[RepoName, str] | None = None,
    repo: str | None = None,
    live: Mapping[NodeName, SiteState] = _NOBODY,
    option: str = "ref",
) -> Target:
    """Return what goes live. The origins may be contacted.

    Args:
        settings: of the machine that asks.
        site: the site's name.
        ref: a tag or branch, short or in full; of a site of several repositories one of each that changes.
        commit: what the ref must stand for, or each ref of several; looked up at the origin where there is none.
        repo: where to look it up, of a site of one repository; found by the site when None.
        live: what the nodes say of the site; needed where `ref` does not name all of its repositories.
        option: with which `ref` was given, for the text of errors.

    Raises:
        PolicyRefused: a ref does not stand for its commit at the origin.
        UsageError: the nodes differ in a repository that is not named, or a repository is not known.
        RefNotFound: an origin has no such ref.
    """
    if isinstance(ref, str):
        if isinstance(commit, Mapping):
            raise UsageError("a site of one repository has one commit")
        full, found = resolve_ref(settings, site, ref, commit=commit, repo=repo)
        return Target(ref=full, commit=found)
    commits: Mapping[RepoName, str] = commit if isinstance(commit, Mapping) else {}
    if alone := sorted(commits.keys() - ref.keys()):
        raise UsageError(f"--commit {alone[0]}=… without --{option} {alone[0]}=…", "give the tag or branch, too")
    kept = () if names_all(settings, site, ref) else parts_kept(site, ref, live, option=option)
    parts = [*kept]
    for name, text in ref.items():
        full, found = resolve_ref(settings, site, text, commit=commits.get(name), repo=name)
        parts.append(SitePart(repo=name, ref=full, commit=found))
    return Target(parts=tuple(sorted(parts, key=lambda part: part.repo)))


def parts_kept(
    site: str, refs: Collection[RepoName], live: Mapping[NodeName, SiteState], *, option: str = "ref"
) -> tuple[SitePart, ...]:
    """Return what is live of the repositories that are not named, the same on all nodes. Pure.

    Args:
        site: its name, for the text of errors.
        refs: the repositories that are named.
        live: what the nodes say of the site.
        option: with which refs are named, for the text of errors.

    Raises:
        UsageError: the nodes make the site of different repositories, or differ in one that is not named; or a
            repository is named that the site does not have.
    """
    kinds: dict[tuple[RepoName, ...], list[NodeName]] = {}
    for node, state in live.items():
        kinds.setdefault(state.repos or (state.repo,), []).append(node)
    if len(kinds) != 1:
        each = (f"{', '.join(repos)} on {shortened(nodes)}" for repos, nodes in kinds.items())
        raise UsageError(
            f"the nodes make site {site} of different repositories: {'; '.join(each)}"
            if kinds
            else f"no node says what is live of site {site}",
            "choose nodes that are alike" if kinds else f"name every repository of the site: --{option} REPO=REF",
        )
    (made_of,) = kinds
    if others := sorted(set(refs) - set(made_of)):
        raise UsageError(
            f"site {site} is made of {', '.join(made_of)} on the nodes, and not of {', '.join(others)}",
            "name its repositories",
        )
    kept: list[SitePart] = []
    problems: list[str] = []
    unnamed = [repo for repo in made_of if repo not in refs]
    for repo in unnamed:
        versions = _versions(repo, live)
        part = next(iter(versions))
        if part is not None and len(versions) == 1:
            kept.append(SitePart(repo=part.repo, ref=part.ref, commit=part.commit))
        else:
            problems.append(f"{repo} is {'; '.join(_where(versions))}")
    if problems:
        names = " ".join(f"--{option} {repo}=REF" for repo in unnamed if not any(part.repo == repo for part in kept))
        raise UsageError(
            f"what is not named stays as it is live on all nodes, but {', and '.join(problems)}",
            f"name what it should be: {names}",
        )
    return tuple(kept)


def _versions(repo: RepoName, live: Mapping[NodeName, SiteState]) -> Mapping[SitePart | None, list[NodeName]]:
    """Return what nodes have live of a repository, None for nothing that they know."""
    found: dict[SitePart | None, list[NodeName]] = {}
    for node, state in live.items():
        part = next((part for part in state.parts if part.repo == repo), None)
        found.setdefault(part, []).append(node)
    return found


def _where(versions: Mapping[SitePart | None, Sequence[NodeName]]) -> Iterator[str]:
    for part, nodes in versions.items():
        what = named(part.ref, part.commit) if part is not None else "not live"
        yield f"{what} on {shortened(nodes)}"


def sources_of(
    settings: Settings, site: str, target: Target, repo: str | None = None
) -> tuple[tuple[RepoName | None, ObjectId], ...]:
    """Return the commits that go live, each with its repository where that is known.

    Args:
        settings: of the machine that asks.
        site: the site's name.
        target: what goes live.
        repo: what `--repo` names, for a site of one.
    """
    if target.parts:
        return tuple((part.repo, part.commit) for part in target.parts)
    return ((known_repository(settings, site, repo), target.commit),)


__all__ = ["names_all", "parts_kept", "refs_by_repo", "sources_of", "target_asked"]
