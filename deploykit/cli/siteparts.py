"""Sites of several repositories, for the `release` commands: where they are read from, and what is asked of each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploykit.cli.options import F
from deploykit.errors import DeploykitError, UsageError

if TYPE_CHECKING:
    from deploykit.config.load import SiteFound
    from deploykit.mirror.submodules import ResolvingSource
    from deploykit.names import RepoName
    from deploykit.release import DeployResult, PartSource, TreeSource
    from deploykit.release.requests import Parts


def part_option(function: F) -> F:
    """Add `--part`, handed on as `parts`."""
    return click.option(
        "--part",
        "parts",
        multiple=True,
        metavar="REPO=SUBDIR=MIRROR",
        help="One of several repositories: its place in a release, and a mirror or clone. A node's settings name them.",
    )(function)


@contextlib.contextmanager
def open_parts(
    found: SiteFound,
    given: Sequence[str],
    opened: Callable[[Path, contextlib.ExitStack], ResolvingSource],
) -> Iterator[PartSource | None]:
    """Yield the repositories of a site; None where it is made of one.

    Args:
        found: the site's settings. The mirrors are those of its node.
        given: `REPO=SUBDIRECTORY=MIRROR` each; they replace what the settings say.
        opened: opens a repository that was given by hand.
    """
    from deploykit.daemons.agent.mirrors import mirror_path
    from deploykit.release import PartSource

    places, paths = _by_hand(given) if given else (dict(found.parts), {})
    if not places:
        yield None
        return
    known: dict[RepoName, ResolvingSource] = {}
    with contextlib.ExitStack() as stack:

        def open_once(repo: RepoName) -> ResolvingSource:
            if repo not in known:
                if repo in paths:
                    known[repo] = opened(paths[repo], stack)
                elif found.node is not None and repo in found.node.repositories:
                    known[repo] = _of_node(found, mirror_path(found.node, repo), repo, open_once, stack)
                else:
                    raise UsageError(f"where is repository {repo}?", f"give --part {repo}=SUBDIR=MIRROR")
            return known[repo]

        yield PartSource(places, open_once)


def _of_node(
    found: SiteFound,
    path: Path,
    repo: RepoName,
    open_once: Callable[[RepoName], ResolvingSource],
    stack: contextlib.ExitStack,
) -> ResolvingSource:
    """Open a mirror of the node, with its submodules where the site has them."""
    from deploykit.git.repository import Repository
    from deploykit.mirror.submodules import SubmoduleRules, SubmoduleSource

    if not path.exists():
        raise UsageError(f"the mirror of {repo} is not at {path}", "let the agent fetch it, or give --part")
    base = stack.enter_context(Repository(path))
    if found.node is None or found.release.submodules != "mirror":
        return base
    rules = SubmoduleRules(repositories=found.node.submodule_repos, open=open_once, depth=found.release.submodule_depth)
    return SubmoduleSource(base, found.node.repositories[repo].url, rules)


def _by_hand(given: Sequence[str]) -> tuple[dict[RepoName, str], dict[RepoName, Path]]:
    from deploykit.names import parse_repo_name
    from deploykit.settings.partplaces import place_problems

    places: dict[RepoName, str] = {}
    paths: dict[RepoName, Path] = {}
    for text in given:
        name, _, rest = text.partition("=")
        place, _, path = rest.partition("=")
        if not path:
            raise UsageError(f"--part {text}: expected REPO=SUBDIR=MIRROR", "such as --part theme=web/theme=theme.git")
        repo = parse_repo_name(name)
        if repo in places:
            raise UsageError(f"--part {repo} is given twice", "each repository has one place")
        places[repo], paths[repo] = place, Path(path)
    if problem := next(place_problems(places), ""):
        raise UsageError(f"--part {problem}", "choose other subdirectories")
    return places, paths


def asked_of(source: TreeSource, refs: Sequence[str], commits: Sequence[str]) -> tuple[str, str, Parts]:
    """Return ref, commit and parts of a deploy, as `Runner.deploy` takes them.

    Raises:
        UsageError: refs of one repository are given for several, or the other way round.
    """
    from deploykit.operations.perrepo import by_repo
    from deploykit.release import PartRequest, PartSource

    if not isinstance(source, PartSource):
        return _of_one(source, refs, commits)
    made_of = sorted(source.places)
    by_ref, by_commit = by_repo("ref", refs, made_of), by_repo("commit", commits, made_of)
    if alone := sorted(by_commit.keys() - by_ref.keys()):
        raise UsageError(f"--commit {alone[0]}=… without --ref {alone[0]}=…", "give the tag or branch, too")
    return "", "", {repo: PartRequest(ref=ref, commit=by_commit.get(repo, "")) for repo, ref in by_ref.items()}


def _of_one(source: TreeSource, refs: Sequence[str], commits: Sequence[str]) -> tuple[str, str, Parts]:
    from deploykit.release.requests import NO_PARTS

    if len(refs) != 1 or len(commits) > 1:
        raise UsageError("the site is made of one repository", "give one --ref, and at most one --commit")
    if "=" in refs[0]:  # a tag may have such a name
        try:
            source.resolve(refs[0])
        except DeploykitError:
            remedy = "give --ref alone; several are named in the settings of the site, or with --part"
            raise UsageError(f"--ref {refs[0]}: the site is made of one repository", remedy) from None
    return refs[0], commits[0] if commits else "", NO_PARTS


def put_live(act: Callable[[TreeSource | None], DeployResult], source: TreeSource | None) -> DeployResult:
    """Activate or roll back; from the mirrors of a site of several repositories only where it cannot be without."""
    from deploykit.errors import PolicyRefused
    from deploykit.release import PartSource

    if isinstance(source, PartSource):
        result = act(None)
        if result.outcome != "refused" or isinstance(result.error, PolicyRefused):
            return result
    return act(source)
