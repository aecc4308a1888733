"""Where a hook goes: which file in (or beside) a repository, gitolite's home, or a directory of programs.

Rules:

* git is asked for its hooks directory; one that other repositories may use too is refused.
* A hook that runs a `<hook>.d` itself (Gitea's, Forgejo's, GitLab's) stays as it is: ours goes into that directory.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from time import monotonic
from typing import Final

import attrs

from deploykit.errors import HookError, InstallError, UsageError
from deploykit.hooking.process import child_environment, run_program
from deploykit.hooking.scripts import Kind, is_ours, script_of

#: The file name of our hook in a directory of hooks.
ENTRY: Final = "50-deploykit"
_GIT_SECONDS: Final = 30.0
#: How hooks of others name the directory of hooks they run: by its name, or made of their own (Gitea, Forgejo).
_OTHERS_DIRECTORY: Final = r"""(?:\bpost-receive|\$\{?\w+\}?|\$\(basename[^)]*\))["']?\.d\b"""


@attrs.frozen(kw_only=True, slots=True)
class HookPlace:
    """Where a hook of some kind goes.

    Args:
        script: the hook's file.
        chains: whether the script runs a `<hook>.d` beside it.
        base: the directory whose `deploykit.toml` holds its settings.
        note: what to do after installing.
    """

    script: Path
    kind: Kind
    chains: bool
    base: Path
    note: str = ""

    @property
    def directory(self) -> Path:
        """The directory of chained hooks."""
        return self.script.with_name(f"{self.script.name}.d")


def find_place(path: Path, kind: Kind | None = None) -> HookPlace:
    """Return where in (or at) `path` the hook goes.

    Args:
        kind: the kind of `path`; None detects git, svn and gitolite.

    Raises:
        UsageError: `path` is nothing of that kind.
        InstallError: the hooks of `path` go somewhere else.
    """
    path = Path(os.path.abspath(path))
    kind = kind or _kind_of(path)
    match kind:
        case "git":
            return _git_place(path)
        case "gitolite":
            return _gitolite_place(path)
        case "svn":
            if not (path / "format").is_file() or not (path / "db").is_dir():
                raise UsageError(f"not a Subversion repository: {path}", "give the directory that svnadmin made")
            return HookPlace(script=path / "hooks" / "post-commit", kind=kind, chains=True, base=path)
        case "jenkins" | "debian":
            name = script_of(kind).file.rpartition("/")[2]
            script = path / name if path.is_dir() else path
            # A directory that is not there yet would become the program: any other name must be a program already.
            if not script.parent.is_dir() or (script.name != name and not script.is_file()):
                missing = path if script.parent.is_dir() else script.parent
                raise UsageError(f"no such directory: {missing}", "give the directory the program goes to")
            return HookPlace(script=script, kind=kind, chains=False, base=script.parent)


def _kind_of(path: Path) -> Kind:
    if (path / "format").is_file() and (path / "db").is_dir():
        return "svn"
    if (path / ".gitolite").is_dir() or path.name == ".gitolite":
        return "gitolite"
    return "git"


def _git_place(path: Path) -> HookPlace:
    git_dir = path / ".git" if (path / ".git").is_dir() else path
    if not (git_dir / "HEAD").is_file() or not (git_dir / "objects").is_dir():
        raise UsageError(f"not a git repository: {path}", "give the bare repository that is pushed to")
    if (git_dir / "custom_hooks").is_dir():
        script = git_dir / "custom_hooks" / "post-receive.d" / ENTRY
        return HookPlace(script=script, kind="git", chains=False, base=git_dir)
    hooks = _hooks_of(git_dir)
    script = hooks / "post-receive"
    if not is_ours(script) and _runs_a_directory(script):
        return HookPlace(script=hooks / "post-receive.d" / ENTRY, kind="git", chains=False, base=git_dir)
    return HookPlace(script=script, kind="git", chains=True, base=git_dir)


def _hooks_of(git_dir: Path) -> Path:
    """Return the directory that git takes the hooks from.

    Raises:
        InstallError: other repositories may use it too, or git failed.
    """
    env = child_environment(os.environ, {"GIT_DIR": str(git_dir)})
    words = ("git", "-C", str(git_dir), "rev-parse", "--git-path", "hooks")
    try:
        printed = run_program(words, env=env, deadline=monotonic() + _GIT_SECONDS)
    except HookError as error:
        raise InstallError(f"git cannot say where the hooks of {git_dir} are: {error.problem}", error.remedy) from error
    hooks = git_dir / os.fsdecode(printed).rstrip("\n")  # the bytes of a path need not be UTF-8
    if not hooks.resolve().is_relative_to(git_dir.resolve()):
        raise InstallError(
            f"git takes the hooks of {git_dir} from {hooks}, which other repositories may use too",
            "unset core.hooksPath there, or copy the script into that directory yourself",
        )
    return hooks


def _runs_a_directory(script: Path) -> bool:
    """Return whether a hook that is not ours runs the hooks in `<hook>.d`, as Gitea's and Forgejo's do."""
    if not script.with_name(f"{script.name}.d").is_dir():
        return False
    try:
        text = script.read_text(errors="replace")
    except OSError:
        return False
    return re.search(_OTHERS_DIRECTORY, text) is not None and os.access(script, os.X_OK)


def _gitolite_place(path: Path) -> HookPlace:
    base = path if path.name == ".gitolite" else path / ".gitolite"
    if not base.is_dir():
        raise UsageError(f"no gitolite in {path}", "give the home directory of the user that gitolite runs as")
    script = base / "hooks" / "common" / "post-receive"
    note = "now run `gitolite setup --hooks-only` as gitolite's user: it links the hook into every repository"
    return HookPlace(script=script, kind="gitolite", chains=True, base=base, note=note)
