"""What a request stands for: the commit that was decided on, or one commit of each of a site's repositories.

Never whatever a ref points at by now: a ref and a commit that do not belong together are refused. A repository that is
not asked for stays as it is live.
"""

from __future__ import annotations

import attrs

from deploykit.errors import DeploykitError, InvalidName, PolicyRefused, PreflightRefused
from deploykit.names import RepoName, parse_object_id, parse_ref_name
from deploykit.release.model import Release, ReleasePart, ReleaseVersion
from deploykit.release.partsource import PartedTree, PartSource
from deploykit.release.requests import Allowances, DeployRequest, PartRequest
from deploykit.release.source import ResolvedTree, TreeSource, parts_of


def resolve_request(source: TreeSource, request: DeployRequest, live: Release | None) -> ResolvedTree:
    """Look up what to deploy, of one repository or of several.

    Args:
        live: the release whose parts stay where the request names no others.

    Raises:
        PolicyRefused: a ref points at another commit, or the parts are not those that were decided on.
        PreflightRefused: there is no such ref or commit, or parts are unknown or lacking.
    """
    if not isinstance(source, PartSource):
        if request.parts:
            named = ", ".join(sorted(request.parts))
            raise PreflightRefused(f"the site is made of one repository, not of {named}", "give one ref")
        return resolve_commit(source, request.ref, request.commit, request.allow)
    if request.ref:
        raise PreflightRefused(
            f"{request.ref} is of one repository, and the site is made of {source.names}",
            "say what of each of them is to be deployed",
        )
    found = _composed(source, request, live)
    if request.commit not in ("", found.commit):
        given = ", ".join(f"{part.repo} {part.commit[:12]}" for part in found.parts)
        raise PolicyRefused(
            f"this would be {given}, and not {request.commit[:12]} that was asked for", "ask for all parts of the site"
        )
    return found


def version_of(found: ResolvedTree, ref: str) -> ReleaseVersion:
    """Return the version of a release that is made from a tree; `ref` is what was asked for."""
    parts = parts_of(found)
    return ReleaseVersion(ref="" if parts else found.ref or ref, commit=found.commit, parts=parts)


def resolve_commit(source: TreeSource, ref: str, commit: str, allow: Allowances) -> ResolvedTree:
    """Look up a ref and the commit it stands for in one repository.

    Raises:
        PolicyRefused: the ref points at another commit.
        PreflightRefused: the source holds no such ref or commit.
    """
    if commit:
        try:
            parse_object_id(commit)
        except InvalidName as error:
            raise PreflightRefused(str(error), "give the full commit id") from error
    try:
        found = source.resolve(ref)
    except DeploykitError as error:
        if not (commit and allow.moved):
            raise PreflightRefused(error.problem, error.remedy or "fetch the mirror first") from error
        found = None
    if found is not None and commit in ("", found.commit):
        return found
    if found is not None and not allow.moved:
        raise PolicyRefused(
            f"{ref} points at {found.commit[:12]} by now, not at {commit[:12]} that was asked for",
            "ask for the commit it points at now, or allow a moved ref",
        )
    try:
        return source.resolve(commit)
    except DeploykitError as error:
        raise PreflightRefused(error.problem, error.remedy or "fetch the mirror first") from error


# -- several repositories ----------------------------------------------------------------------------------------------


def _composed(source: PartSource, request: DeployRequest, live: Release | None) -> PartedTree:
    unknown = sorted(request.parts.keys() - source.places.keys())
    if unknown:
        raise PreflightRefused(f"the site has no part {', '.join(unknown)}", f"its parts are {source.names}")
    kept = {part.repo: part for part in live.parts} if live is not None else {}
    lacking = sorted(source.places.keys() - request.parts.keys() - kept.keys())
    if lacking:
        raise PreflightRefused(
            f"nothing of {', '.join(lacking)} is live, and nothing is asked for", "say what of each is to be deployed"
        )
    parts = []
    for repo, path in source.places.items():
        wanted = request.parts.get(repo)
        if wanted is None:
            parts.append(attrs.evolve(kept[repo], path=path))
            continue
        try:
            parts.append(_part(source.part(repo), repo, path, wanted, request.allow))
        except (PolicyRefused, PreflightRefused) as error:
            raise type(error)(f"{repo}: {error.problem}", error.remedy) from error
    return source.compose(parts)


def _part(source: TreeSource, repo: RepoName, path: str, wanted: PartRequest, allow: Allowances) -> ReleasePart:
    found = resolve_commit(source, wanted.ref, wanted.commit, allow)
    try:
        ref = parse_ref_name(found.ref or wanted.ref)
    except InvalidName as error:  # a commit alone: the version is named after tags and branches
        raise PreflightRefused(f"{wanted.ref} is no tag or branch", "give the one that has the commit") from error
    return ReleasePart(repo=repo, path=path, ref=ref, commit=found.commit)
