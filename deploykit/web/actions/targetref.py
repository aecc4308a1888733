"""Which commit a ref of a site stands for, and which nodes are known to hold it.

Rules:

* The origin decides, whenever its address is in the settings. Else what nodes hold, if they agree.
* A commit that was named must be what the ref stands for: a ref that moved is refused, with both commits.
* Whether a node holds a ref is only known as of when it was last heard: it warns, and never refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from deploykit.errors import (
    ActionRefused,
    DeadlineExceeded,
    DeploykitError,
    InvalidName,
    OriginError,
    RefNotFound,
)
from deploykit.fleet.plan import Target
from deploykit.git.transport.lookup import resolve_at_origin
from deploykit.messages import SiteState
from deploykit.messages.rollout import RolloutKind
from deploykit.names import (
    NodeName,
    ObjectId,
    RepoName,
    SiteName,
    parse_object_id,
    parse_ref_name,
)
from deploykit.settings.node import Settings
from deploykit.web.projection.activityviews import RefView
from deploykit.web.projection.queries import Queries
from deploykit.web.projection.views import MAX_LIMIT, PageRequested
from deploykit.web.viewer import Viewer

_SHORT: Final = 12


@attrs.frozen(kw_only=True, slots=True)
class ResolvedTarget:
    """What is to go live.

    Args:
        repo: the repository; None where a full ref and a commit were given, and nobody knows it.
        held: what is known of who holds the ref; None where nothing is.
        warnings: lines for the person.
    """

    repo: RepoName | None
    target: Target
    held: RefView | None = None
    warnings: tuple[str, ...] = ()

    def holds(self, node: NodeName, planned: int) -> bool | None:
        """Return whether a node is known to hold the ref as this commit; None where that is not known.

        Args:
            planned: how many nodes the rollout has.
        """
        if self.held is None:
            return None
        if self.held.commit != self.target.commit or node in self.held.missing:
            return False
        all_named = self.held.expected - self.held.holders <= len(self.held.missing)
        return True if all_named and self.held.expected >= planned else None


def repository_of(
    settings: Settings, site: SiteName, states: Mapping[NodeName, SiteState], kind: RolloutKind = "deploy"
) -> RepoName | None:
    """Return the repository that a site is made from: by the settings of this machine, else as its nodes say.

    Args:
        settings: of this machine.
        site: the site.
        states: what its nodes say of it.
        kind: what is planned, for the text of the refusal.

    Raises:
        ActionRefused: 409: nodes make it from different ones, or it is made of several, which only the command line
            deploys.
    """
    known = settings.sites.get(site)
    several = (known.repos if known is not None and known.parts else ()) or next(
        (state.repos for state in states.values() if state.repos), ()
    )
    if several:
        refs = " ".join(f"--ref {repo}=REF" for repo in several) if kind == "deploy" else ""
        raise ActionRefused(
            f"site {site} is made of several repositories ({', '.join(several)}): this console shows such a site, and "
            "does not change what is live on it",
            f"from a shell: {' '.join(filter(None, ('deploykit', kind, site, refs, '--all')))}",
            status=409,
        )
    if known is not None:
        return known.repo
    found = sorted({state.repo for state in states.values()})
    if len(found) > 1:
        names = ", ".join(found[:5])
        raise ActionRefused(
            f"nodes make site {site} from different repositories: {names}", "choose nodes of one of them", status=409
        )
    return found[0] if found else None


def resolve_target(
    settings: Settings, queries: Queries, viewer: Viewer, repo: RepoName | None, ref: str, commit: str, field: str
) -> ResolvedTarget:
    """Return what a ref stands for.

    Args:
        settings: of this machine.
        queries, viewer: which refs nodes are known to hold.
        repo: the repository of the site.
        ref, commit: as typed; `commit` may be empty.
        field: the name of the field that `ref` comes from.

    Raises:
        ActionRefused: 422: there is no such ref, or one of both is no name; 409: the ref stands for another commit.
    """
    name, wanted = ref.strip(), commit.strip()
    if not name:
        raise ActionRefused("no ref is given", "which tag or branch?", status=422, **{field: "which tag or branch?"})
    wanted_id = _parsed_commit(wanted)
    origin = settings.repositories.get(repo) if repo is not None else None
    warnings: list[str] = []
    target = None
    if origin is not None:
        try:
            full, found = resolve_at_origin(origin.url, name, origin.mirror)
            target = Target(ref=full, commit=found)
        except InvalidName as error:
            raise ActionRefused(error.problem, error.remedy, status=422, **{field: error.problem}) from error
        except RefNotFound as error:
            problem = f"the origin of {repo} has no tag or branch {name[:80]!a}"
            raise ActionRefused(problem, "push it first, or check the name", status=422, **{field: problem}) from error
        except (OriginError, DeadlineExceeded):
            if wanted_id is None or not name.startswith("refs/"):
                raise
            warnings.append("the origin could not be asked whether the ref still stands for this commit")
    held = held_ref(queries, viewer, repo, (target.ref if target is not None else None) or name)
    if target is None:
        target = _without_origin(repo, name, wanted_id, held, field)
        if origin is None:
            warnings.append(
                f"this console does not know the origin of {repo or 'the site'}: the commit was not checked"
            )
    if wanted_id is not None and target.commit != wanted_id:
        problem = f"{target.name} is {target.commit[:_SHORT]} now, not {wanted_id[:_SHORT]}: it has moved"
        raise ActionRefused(problem, "look at the plan again", status=409, **{field: problem})
    if held is None:
        warnings.append(f"no node is known to hold {target.name}: each must fetch it first")
    elif held.commit != target.commit:
        warnings.append(
            f"nodes hold {target.name} as {held.commit[:_SHORT]}, not {target.commit[:_SHORT]}: "
            "each must fetch it first"
        )
    return ResolvedTarget(repo=repo, target=target, held=held, warnings=tuple(warnings))


def held_ref(queries: Queries, viewer: Viewer, repo: RepoName | None, name: str) -> RefView | None:
    """Return what is known of who holds a ref; a tag before a branch of the same short name."""
    if repo is None:
        return None
    candidates = [name] if name.startswith("refs/") else [f"refs/tags/{name}", f"refs/heads/{name}"]
    short = candidates[0].removeprefix("refs/tags/").removeprefix("refs/heads/")
    page = PageRequested(search=short, limit=MAX_LIMIT)
    by_name = {view.ref: view for view in queries.refs(viewer, repo, page).items}
    return next((by_name[each] for each in candidates if each in by_name), None)


def _parsed_commit(text: str) -> ObjectId | None:
    if not text:
        return None
    try:
        return parse_object_id(text)
    except InvalidName as error:
        raise ActionRefused(error.problem, "give all of it", status=422, commit=error.problem) from error


def _without_origin(
    repo: RepoName | None, name: str, commit: ObjectId | None, held: RefView | None, field: str
) -> Target:
    """Return the target by what was typed and what nodes hold, where no origin can be asked."""
    try:
        if name.startswith("refs/") and commit is not None:
            return Target(ref=parse_ref_name(name), commit=commit)
        if held is not None:
            return Target(ref=parse_ref_name(held.ref), commit=commit or parse_object_id(held.commit))
    except DeploykitError as error:
        raise ActionRefused(error.problem, error.remedy, status=422, **{field: error.problem}) from error
    what = f"repository {repo} is not in the settings of this console" if repo else "the site's repository is unknown"
    problem = f"{what}, and no node is known to hold {name[:80]!a}"
    raise ActionRefused(problem, "give refs/… in full and the commit", status=422, **{field: problem})


__all__ = ["ResolvedTarget", "held_ref", "repository_of", "resolve_target"]
