"""Put hook scripts into repositories, and take them out again. What was there before is kept.

Rules:

* The script gets the interpreter of this installation, and where its libraries are: it finds deploykit in a virtual
  environment that is on nobody's PATH, in the environment git gives it, or none. If that environment is gone one day,
  the script still starts, with the `python3` on PATH, and says what to do.
* Installing twice changes nothing. A hook that is not ours stays, or moves to `<hook>.d/10-kept` when asked to chain;
  uninstalling puts it back. A hook that runs a `<hook>.d` itself (Gitea's, Forgejo's, GitLab's) gets ours in there.
* A script is whole or not there: temporary name, fsync, rename, fsync of the directory.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import subprocess
import sys
from pathlib import Path
from typing import Final, Literal

import attr
import attrs

import deploykit
from deploykit.errors import InstallError, UsageError
from deploykit.system.durable import sync_directory

Kind = Literal["git", "svn", "gitolite", "jenkins", "debian"]
KINDS: Final[tuple[Kind, ...]] = ("git", "svn", "gitolite", "jenkins", "debian")

#: Which script each kind is, and the marker in its first lines that says that a file is ours.
_SCRIPTS: Final[dict[Kind, str]] = {
    "git": "git/post-receive",
    "gitolite": "git/post-receive",
    "svn": "svn/post-commit",
    "jenkins": "jenkins/jenkins-notify",
    "debian": "debian/reprepro-incoming",
}
_MARKER: Final = "# deploykit hook: "
_KEPT: Final = "10-kept"
_ENTRY: Final = "50-deploykit"
#: How hooks of others name the directory of hooks they run: by its name, or made of their own (Gitea, Forgejo).
_OTHERS_DIRECTORY: Final = r"""(?:\bpost-receive|\$\{?\w+\}?|\$\(basename[^)]*\))["']?\.d\b"""


@attrs.frozen(kw_only=True, slots=True)
class InstallResult:
    """What was done, or not, at one place.

    Args:
        path: the script.
        change: what became of it.
        kept: where somebody else's hook is now; None if there was none.
        note: what a person should know or do next; may be empty.
    """

    path: Path
    kind: Kind
    change: Literal["installed", "updated", "unchanged", "removed", "absent"]
    kept: Path | None = None
    note: str = ""


@attrs.frozen(kw_only=True, slots=True)
class HookPlace:
    """Where a hook of some kind goes.

    Args:
        script: the file it is.
        chains: whether a `<hook>.d` beside it is run.
        base: the directory whose `deploykit.toml` counts.
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


def hooks_dir() -> Path:
    """Where the hook scripts are: beside the code in a wheel, at the top of the tree in an editable install.

    Raises:
        InstallError: this installation has none.
    """
    package = Path(deploykit.__file__).resolve().parent
    for candidate in (package / "_hooks", package.parent / "hooks"):
        if (candidate / "git" / "post-receive").is_file():
            return candidate
    raise InstallError(f"no hook scripts beside {package}", "install deploykit from its wheel")


# -- places ------------------------------------------------------------------------------------------------------------


def find_place(path: Path, kind: Kind | None = None) -> HookPlace:
    """Find out where in (or at) `path` the hook goes.

    Args:
        kind: of what is there; found out when None.

    Raises:
        UsageError: there is no such thing.
        InstallError: hooks go somewhere else there.
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
            name = _SCRIPTS[kind].rpartition("/")[2]
            script = path / name if path.is_dir() else path
            if not script.parent.is_dir():
                raise UsageError(f"no such directory: {script.parent}", "give the directory the program goes to")
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
        script = git_dir / "custom_hooks" / "post-receive.d" / _ENTRY
        return HookPlace(script=script, kind="git", chains=False, base=git_dir)
    hooks = _hooks_of(git_dir)
    script = hooks / "post-receive"
    if not is_ours(script) and _runs_a_directory(script):
        return HookPlace(script=hooks / "post-receive.d" / _ENTRY, kind="git", chains=False, base=git_dir)
    return HookPlace(script=script, kind="git", chains=True, base=git_dir)


def _hooks_of(git_dir: Path) -> Path:
    """The directory git takes the hooks from.

    Raises:
        InstallError: it is shared with other repositories.
    """
    env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": os.environ.get("HOME", "/"), "GIT_DIR": str(git_dir)}
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--git-path", "hooks"],
            cwd=git_dir,
            env=env,
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise InstallError(f"cannot run git: {error.strerror}", "apt-get install git") from error
    if done.returncode != 0:
        raise InstallError(f"git does not take {git_dir}: {os.fsdecode(done.stderr).strip()}")
    hooks = git_dir / os.fsdecode(done.stdout).rstrip("\n")  # the bytes of a path need not be UTF-8
    if not hooks.resolve().is_relative_to(git_dir.resolve()):
        raise InstallError(
            f"git takes the hooks of {git_dir} from {hooks}, which other repositories may use too",
            "unset core.hooksPath there, or copy the script into that directory yourself",
        )
    return hooks


def _runs_a_directory(script: Path) -> bool:
    """Tell whether somebody else's hook runs the hooks in `<hook>.d`, as Gitea's and Forgejo's do."""
    if not script.with_name(f"{script.name}.d").is_dir():
        return False
    try:
        text = script.read_text(errors="replace")
    except OSError:
        return False
    return re.search(_OTHERS_DIRECTORY, text) is not None and os.access(script, os.X_OK)


def _would_run_itself(script: Path) -> bool:
    """Tell whether somebody else's hook names the directory that `chain` would move it to."""
    lines = (_read(script) or "").split("\n")
    named = re.compile(rf"""\b{re.escape(script.name)}["']?\.d\b""").search
    return any(named(line) for line in lines if not line.lstrip().startswith("#"))


def _gitolite_place(path: Path) -> HookPlace:
    base = path if path.name == ".gitolite" else path / ".gitolite"
    if not base.is_dir():
        raise UsageError(f"no gitolite in {path}", "give the home directory of the user that gitolite runs as")
    script = base / "hooks" / "common" / "post-receive"
    note = "now run `gitolite setup --hooks-only` as gitolite's user: it links the hook into every repository"
    return HookPlace(script=script, kind="gitolite", chains=True, base=base, note=note)


# -- installing --------------------------------------------------------------------------------------------------------


def install(path: Path, kind: Kind | None = None, *, chain: bool = False) -> InstallResult:
    """Install the hook for what is at `path`, with the interpreter that runs this.

    Args:
        chain: move a hook that is there already to `<hook>.d/10-kept`, where ours runs it first.

    Raises:
        UsageError: there is nothing of that kind.
        InstallError: another hook is there, or the script cannot be written; nothing was changed.
    """
    place = find_place(path, kind)
    script, kept = place.script, None
    text = script_text(place.kind)
    there = _read(script)
    if there is not None and not is_ours(script):
        if not (chain and place.chains):
            remedy = "use --chain: it is kept, and run first" if place.chains else "remove it, or choose another place"
            raise InstallError(f"{script} is somebody else's", remedy)
        kept = place.directory / _KEPT
        if _would_run_itself(script):
            raise InstallError(
                f"{script} runs what is in {place.directory}, it seems: kept in there it would run itself",
                "make that directory and install again: ours goes in there"
                if place.kind == "git"
                else f"copy {hooks_dir() / _SCRIPTS[place.kind]} into that directory yourself, as {_ENTRY}",
            )
        if os.path.lexists(kept):
            raise InstallError(f"{kept} is there already, and {script} is somebody else's", "rename one of the two")
    elif there == text and os.access(script, os.X_OK):
        return InstallResult(path=script, kind=place.kind, change="unchanged")
    try:
        _make_directory(script.parent)
        if kept is not None:
            _make_directory(kept.parent)
            script.rename(kept)
        try:
            _write(script, text)
        except OSError:
            if kept is not None:
                kept.rename(script)
            raise
    except OSError as error:
        raise InstallError(
            f"cannot write {script}: {error.strerror}", "run this as the owner of the directory"
        ) from error
    change: Literal["installed", "updated"] = "installed" if there is None or kept else "updated"
    note = "; ".join(filter(None, (_unreachable(script), place.note)))
    return InstallResult(path=script, kind=place.kind, change=change, kept=kept, note=note)


def uninstall(path: Path, kind: Kind | None = None) -> InstallResult:
    """Remove the hook for what is at `path`; a hook that was kept comes back.

    Raises:
        UsageError: there is nothing of that kind.
        InstallError: the hook there is not ours, or cannot be removed.
    """
    place = find_place(path, kind)
    script = place.script
    if not os.path.lexists(script):
        return InstallResult(path=script, kind=place.kind, change="absent")
    if not is_ours(script):
        raise InstallError(f"{script} is somebody else's", "nothing of ours is there")
    kept = place.directory / _KEPT
    back = place.chains and os.path.lexists(kept)
    note = ""
    try:
        if back:
            kept.replace(script)
        else:
            script.unlink()
        if place.chains and place.directory.is_dir():
            others = sorted(entry.name for entry in place.directory.iterdir())
            if others:
                note = f"nothing runs {', '.join(others)} in {place.directory} any more"
            else:
                place.directory.rmdir()
        sync_directory(script.parent)
    except OSError as error:
        raise InstallError(f"cannot remove {script}: {error.strerror}", "run this as its owner") from error
    return InstallResult(path=script, kind=place.kind, change="removed", kept=script if back else None, note=note)


def is_ours(script: Path) -> bool:
    """Tell whether a file is a hook script of ours, of any version."""
    text = _read(script)
    return text is not None and any(line.startswith(_MARKER) for line in text.split("\n", 16)[:16])


def script_text(kind: Kind) -> str:
    """Return the script of a kind with the interpreter of this installation in it."""
    source = (hooks_dir() / _SCRIPTS[kind]).read_text(encoding="utf-8")
    library = list(
        dict.fromkeys(str(Path(m.__file__).resolve().parent.parent) for m in (deploykit, attr) if m.__file__)
    )
    quick = _starts(["-IS"], library)
    flags, places = ("-IS", library) if quick else ("-I", [])
    head = _first_lines(sys.executable, flags)
    return head + source.partition("\n")[2].replace(
        'LIBRARY: "list[str]" = []', f'LIBRARY: "list[str]" = {places!r}', 1
    )


def _first_lines(python: str, flags: str) -> str:
    """What makes the kernel run the script: by way of sh, so that an interpreter that is gone is told of in one line.

    It also lets the interpreter's path be of any length and hold blanks, which a plain `#!` does not.
    """
    gone = f"deploykit: nothing queued: {python} is gone; run `deploykit hooks install` again"
    # To Python all of it between the first and the last line is one text and means nothing.
    return f"""#!/bin/sh
''':'
test -x {_quoted(python)} && exec {_quoted(python)} {flags} "$0" "$@"
command -v python3 >/dev/null && exec python3 -I "$0" "$@"
echo {_quoted(gone)} >&2
exit 0
':'''
"""


def _quoted(text: str) -> str:
    """Quote for sh without three quotes in a row, which would end the text around it."""
    return "'" + text.replace("'", "'\"'\"'") + "'"


def _starts(flags: list[str], library: list[str]) -> bool:
    """Try whether a hook would start so: without `site`, which costs a third of an interpreter start."""
    code = f"import sys; sys.path.extend({library!r}); import deploykit.hooking.git, deploykit.wire.codec"
    done = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, env={}, check=False)
    return done.returncode == 0


def _make_directory(path: Path) -> None:
    """Make a directory of hooks like the one it is in: whoever runs those must be able to run these, whatever our
    umask is, and whoever owns those may take these away again."""
    if path.is_dir():
        return
    _make_directory(path.parent)
    path.mkdir()
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)  # its owner may swap it for a link
    try:
        above = path.parent.stat()
        if os.geteuid() == 0:
            os.fchown(fd, above.st_uid, above.st_gid)
        os.fchmod(fd, stat.S_IMODE(above.st_mode) | 0o700)
    finally:
        os.close(fd)


def _unreachable(script: Path) -> str:
    """Say so if others than this user run the script and cannot reach its interpreter."""
    python = Path(sys.executable)
    owner = script.parent.stat().st_uid
    if owner in (os.geteuid(), 0):
        return ""
    for place in (*reversed(python.parents), python.resolve(), *python.resolve().parents):
        found = place.stat()
        if not found.st_mode & (stat.S_IXUSR if found.st_uid == owner else stat.S_IXGRP | stat.S_IXOTH):
            return f"mind: uid {owner} may not enter or run {place}; install deploykit elsewhere, in /opt/deploykit say"
    return ""


def _read(script: Path) -> str | None:
    try:
        return script.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return "" if script.is_symlink() else None
    except OSError as error:
        raise InstallError(f"cannot read {script}: {error.strerror}") from error


def _write(script: Path, text: str) -> None:
    # A name nobody can guess, never one that is there: whoever owns the directory could lay a link for root.
    temporary = script.with_name(f".{script.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o755)
            os.fsync(file.fileno())
        temporary.replace(script)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(script.parent)
