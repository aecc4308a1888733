"""`--ref` and `--commit` of `deploy`, and `--to` of `rollback`: of one repository, or `REPO=REF` of each of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploykit.fleet.plan import Plan, Target
    from deploykit.names import RepoName
    from deploykit.settings.node import Settings


def asked_for(
    settings: Settings, site: str, refs: Sequence[str], commits: Sequence[str], repo: str | None, *, option: str = "ref"
) -> tuple[str | Mapping[RepoName, str], str | Mapping[RepoName, str] | None]:
    """Return the ref and the commit that are asked for, or those of each repository, as `plan_deploy` takes them.

    Args:
        settings: of this machine.
        site: the site's name.
        refs, commits, repo: as they were given; at least one ref.
        option: with which refs were given.

    Raises:
        UsageError: they do not fit together, or not the site.
    """
    from deploykit.errors import UsageError
    from deploykit.operations.perrepo import by_repo
    from deploykit.operations.siteparts import refs_by_repo

    several = refs_by_repo(settings, site, refs, repo=repo, option=option)
    if several is not None:
        return several, by_repo("commit", commits, ())
    if len(refs) != 1 or len(commits) > 1:
        raise UsageError(f"site {site} is made of one repository", f"give one --{option}, and at most one --commit")
    return refs[0], commits[0] if commits else None


def asks_what_is_live(settings: Settings, site: str, ref: str | Mapping[RepoName, str]) -> bool:
    """Return whether nodes have to say what they have live of repositories that are not named."""
    from deploykit.operations.siteparts import names_all

    return not isinstance(ref, str) and not names_all(settings, site, ref)


def one_for_console(refs: Sequence[str], commits: Sequence[str]) -> tuple[str | None, str | None]:
    """Return the ref and the commit that a console is asked for; None for what is not given.

    Raises:
        UsageError: several are given.
    """
    from deploykit.errors import UsageError

    if len(refs) > 1 or len(commits) > 1:
        raise UsageError("a console deploys no site of several repositories", "leave --via out")
    return refs[0] if refs else None, commits[0] if commits else None


def check_repeats(plan: Plan, refs: Sequence[str], commits: Sequence[str]) -> None:
    """Accept refs and commits that are those of an earlier rollout: a retry has no others.

    Raises:
        UsageError: another one is given.
    """
    from deploykit.errors import UsageError

    target = plan.releases[0]
    known = _words(target)
    for text in refs:
        if text not in known:
            raise UsageError(
                f"rollout {plan.rollout} is of {target.name}, not {text}", "leave --ref out, or choose nodes"
            )
    ids = {f"{part.repo}={part.commit}" for part in target.parts} or {target.commit}
    for text in commits:
        if text not in ids:
            raise UsageError(
                f"rollout {plan.rollout} is of commit {', '.join(sorted(ids))}, not {text}",
                "leave --commit out, or choose nodes",
            )


def ref_options(target: Target) -> str:
    """Return the options that name a target: `--ref v1.2`, or `--ref app=v3 --ref theme=v7`."""
    from deploykit.names import short_ref

    if target.ref is not None:
        return f"--ref {short_ref(target.ref)}"
    return " ".join(f"--ref {part.repo}={short_ref(part.ref)}" for part in target.parts)


def _words(target: Target) -> frozenset[str]:
    """Return the texts of `--ref` that name a target, or a part of it."""
    from deploykit.names import short_ref

    if target.ref is not None:
        return frozenset({target.ref, short_ref(target.ref)})
    return frozenset(f"{part.repo}={ref}" for part in target.parts for ref in (part.ref, short_ref(part.ref)))


__all__ = ["asked_for", "asks_what_is_live", "check_repeats", "one_for_console", "ref_options"]
