"""Install hook scripts and remove them again. What was there before is kept.

Rules:

* The script gets the interpreter of this installation and the directories of its libraries. So it finds deploykit in a
  virtual environment that is on nobody's PATH, whatever environment git gives it.
* If that interpreter is gone one day, the script still starts, with the `python3` on PATH, and prints what to do.
* Installing twice changes nothing. A hook that is not ours stays, or moves to `<hook>.d/10-kept` when asked to chain;
  uninstalling puts it back.
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
from deploykit.errors import InstallError
from deploykit.hooking.places import ENTRY, find_place
from deploykit.hooking.scripts import Kind, hooks_dir, is_ours, read_script, script_of
from deploykit.system.durable import sync_directory

_KEPT: Final = "10-kept"


@attrs.frozen(kw_only=True, slots=True)
class InstallResult:
    """What an installation or removal did at one place.

    Args:
        path: the script.
        change: what was done to it.
        kept: where the hook that was there before is now; None if there was none.
        note: what a person should know or do next; may be empty.
    """

    path: Path
    kind: Kind
    change: Literal["installed", "updated", "unchanged", "removed", "absent"]
    kept: Path | None = None
    note: str = ""


def install(path: Path, kind: Kind | None = None, *, chain: bool = False) -> InstallResult:
    """Install the hook for what is at `path`, with the interpreter of this process.

    Args:
        chain: move a hook that is there already to `<hook>.d/10-kept`, where ours runs it first.

    Raises:
        UsageError: there is nothing of that kind.
        InstallError: another hook is there, or the script cannot be written; nothing was changed.
    """
    place = find_place(path, kind)
    script, kept = place.script, None
    text = script_text(place.kind)
    there = read_script(script)
    if there is not None and not is_ours(script):
        if not (chain and place.chains):
            remedy = "use --chain: it is kept, and run first" if place.chains else "remove it, or choose another place"
            raise InstallError(f"{script} is somebody else's", remedy)
        kept = place.directory / _KEPT
        if _would_run_itself(script):
            raise InstallError(
                f"{script} seems to run the hooks in {place.directory}: kept in there it would run itself",
                "make that directory and install again: ours goes in there"
                if place.kind == "git"
                else f"copy {hooks_dir() / script_of(place.kind).file} into that directory yourself, as {ENTRY}",
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


def _would_run_itself(script: Path) -> bool:
    """Return whether a hook that is not ours names the directory that `chain` would move it to."""
    lines = (read_script(script) or "").split("\n")
    named = re.compile(rf"""\b{re.escape(script.name)}["']?\.d\b""").search
    return any(named(line) for line in lines if not line.lstrip().startswith("#"))


def script_text(kind: Kind) -> str:
    """Return the script of a kind with the interpreter of this installation in it."""
    source = (hooks_dir() / script_of(kind).file).read_text(encoding="utf-8")
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
    """Return the lines that start the script through sh, which prints one line if the interpreter is gone.

    The interpreter's path may then be of any length and hold blanks, which a plain `#!` does not allow.
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
    """Return whether a hook starts with these flags; without `site` it saves a third of an interpreter start."""
    code = f"import sys; sys.path.extend({library!r}); import deploykit.hooking.git, deploykit.wire.codec"
    done = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, env={}, check=False)
    return done.returncode == 0


def _make_directory(path: Path) -> None:
    """Make a directory with owner and mode of the one it is in, whatever our umask is.

    Whoever runs the hooks there must be able to run these, and whoever owns those may remove these.
    """
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
    """Return a warning if the script's owner cannot reach its interpreter, else nothing."""
    python = Path(sys.executable)
    owner = script.parent.stat().st_uid
    if owner in (os.geteuid(), 0):
        return ""
    for place in (*reversed(python.parents), python.resolve(), *python.resolve().parents):
        found = place.stat()
        if not found.st_mode & (stat.S_IXUSR if found.st_uid == owner else stat.S_IXGRP | stat.S_IXOTH):
            return (
                f"uid {owner} may not enter or run {place}: install deploykit elsewhere, for example in /opt/deploykit"
            )
    return ""


def _write(script: Path, text: str) -> None:
    # A name nobody can guess, and never an existing one: the owner of the directory could place a link for root.
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
