"""Options that say something of each repository of a site: `--ref app=v3 --ref theme=v7`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deploykit.errors import UsageError
from deploykit.names import RepoName, parse_repo_name


def by_repo(option: str, texts: Sequence[str], made_of: Sequence[RepoName]) -> Mapping[RepoName, str]:
    """Return what texts of the form `REPO=VALUE` say of each repository.

    Args:
        option: which one they were given with, for the text of errors.
        texts: as they were given.
        made_of: the repositories of the site, by name; empty where that is not known.

    Raises:
        UsageError: one has another form, names no repository of the site, or says something twice.
    """
    of = ", ".join(made_of) or "several repositories"
    found: dict[RepoName, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not value:
            example = f"{made_of[0] if made_of else 'REPO'}={'TAG' if '=' in text else text}"
            raise UsageError(f"--{option} {text}: the site is made of {of}", f"say of which: --{option} {example}")
        repo = parse_repo_name(name)
        if repo in found:
            raise UsageError(f"--{option} {repo}=… is given twice", "a release has one version of it")
        if made_of and repo not in made_of:
            raise UsageError(f"--{option} {text}: the site is made of {of}", "name one of these")
        found[repo] = value
    return found


__all__ = ["by_repo"]
