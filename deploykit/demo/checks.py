"""The checks of the demo's claims: with git and the file system alone."""

from __future__ import annotations

from pathlib import Path

from deploykit.demo.stage import Stage

#: Files of a release beside the tree it was made from.
_OURS = ("TAG", ".deploykit/")


def refs_of(stage: Stage, repository: Path) -> dict[str, str]:
    """Return every branch and tag of a repository with its object id, as git lists them."""
    listed = stage.git(
        f"--git-dir={repository}", "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags"
    )
    return dict(line.split(" ", 1) for line in listed.splitlines())


def refs_or_none(stage: Stage, repository: Path) -> dict[str, str] | None:
    """Return the refs of a repository, None if it does not exist yet."""
    return refs_of(stage, repository) if (repository / "HEAD").exists() else None


def holds(stage: Stage, repository: Path, ref: str, commit: str) -> bool:
    """Return whether a repository exists and its ref names `commit`, with its objects."""
    if not (repository / "HEAD").exists():
        return False
    done = stage.run("git", f"--git-dir={repository}", "rev-parse", "--quiet", "--verify", f"{ref}^{{commit}}")
    return done.code == 0 and done.output.strip() == commit


def tree_differences(stage: Stage, origin: Path, commit: str, directory: Path) -> list[str]:
    """Return git's comparison of a directory with a commit: a line for each file that differs, lacks or is too many."""
    index = stage.root / "check.index"
    index.unlink(missing_ok=True)
    base = ("git", f"--git-dir={origin}", f"--work-tree={directory}", "-c", "core.bare=false")
    env = {"GIT_INDEX_FILE": str(index)}
    found: list[str] = []
    for words in (
        ("read-tree", commit),
        ("update-index", "-q", "--refresh"),
        ("diff-files", "--name-status"),
        ("ls-files", "--others"),
    ):
        done = stage.run(*base, *words, cwd=directory, env=env)
        if words[0] in ("diff-files", "ls-files"):
            found += [line for line in done.output.splitlines() if not line.startswith(_OURS)]
        elif done.code not in (0, 1):
            found.append(done.errors.strip())
    return found
