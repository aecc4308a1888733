"""Find the scripts of a release: in its tree before it is written, or in a directory on disk; refuse unsafe ones."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import DeploykitError, PreflightRefused
from deploykit.git.objectformat import BLOB
from deploykit.git.objectreader import ObjectReader
from deploykit.names import ObjectId
from deploykit.release.environment import Environment, environment_of, umask_of
from deploykit.release.model import SCRIPTS
from deploykit.release.scripts import open_checked
from deploykit.release.site import Site
from deploykit.release.source import TreeSource
from deploykit.settings.site import SiteSettings
from deploykit.system.ownership import is_private_group, user_name
from deploykit.system.users import AS_OWNER, identity_of, trusted_users
from deploykit.trees import TreeEntry, TreeRules, list_directory

_EXECUTABLE: Final = 0o100755
_SYMLINK: Final = 0o120000
_DIRECTORY: Final = 0o040000
_MAX_LINKS: Final = 8
_MAX_TARGET: Final = 4096


def scripts_in_tree(source: TreeSource, tree: ObjectId, settings: SiteSettings, rules: TreeRules) -> dict[str, str]:
    """Find the scripts in a tree, before it is written.

    Raises:
        PreflightRefused: a required one is missing, or one is not executable.
    """
    if not settings.scripts:
        return _pick_scripts((), settings)
    if settings.scripts.startswith("/"):
        return scripts_on_disk(Path(settings.scripts), settings)
    entries = list_directory(source.store, tree, settings.scripts, rules)
    where = "" if entries else _linked_to(source, tree, settings.scripts, rules)
    if where and _pick_scripts((entry_name(e) for e in list_directory(source.store, tree, where, rules)), settings):
        raise PreflightRefused(
            f"the scripts in {where} would not run: {settings.scripts} leads there by a symlink",
            f'set scripts = "{where}", or "" for none',
        )
    names = {entry_name(e): e.mode for e in entries if e.mode != _DIRECTORY}
    chosen = _pick_scripts(names, settings)
    for step, name in chosen.items():
        mode = names[name]
        if mode != _EXECUTABLE:
            why = "is a symlink" if mode == _SYMLINK else "is not executable"
            raise PreflightRefused(
                f"{settings.scripts}/{name} {why}", f"git update-index --chmod=+x {settings.scripts}/{name}"
            )
        chosen[step] = f"{settings.scripts.strip('/')}/{name}"
    return chosen


def entry_name(entry: TreeEntry) -> str:
    """Return the last component of an entry's path."""
    return os.fsdecode(entry.path.rpartition(b"/")[2])


def _linked_to(source: TreeSource, tree: ObjectId, path: str, rules: TreeRules) -> str:
    """Return where a path through symlinks of the tree leads in it; empty where it has none, or leads nowhere."""
    parts, linked = [p for p in path.split("/") if p], False
    for _ in range(_MAX_LINKS):
        here = ""
        for at, part in enumerate(parts):
            found = next((e for e in list_directory(source.store, tree, here, rules) if entry_name(e) == part), None)
            if found is not None and found.mode == _SYMLINK:
                with ObjectReader(source.store, max_bytes=_MAX_TARGET) as reader:
                    target = os.fsdecode(reader.read(found.oid, BLOB))
                path = posixpath.normpath(posixpath.join(here, target, *parts[at + 1 :]))
                parts, linked = path.split("/"), True
                break
            if found is None or found.mode != _DIRECTORY:
                return ""
            here = f"{here}/{part}" if here else part
        else:
            return here if linked else ""
    return ""


def scripts_on_disk(
    directory: Path, settings: SiteSettings, *, below: Path | None = None, steps: tuple[str, ...] = SCRIPTS
) -> dict[str, str]:
    """Find the scripts in a directory, checked as far as they can be before they run.

    Args:
        below: give paths relative to this directory.
        steps: those that will run; problems of other ones are ignored.

    Raises:
        PreflightRefused: a required one is missing, or one may not be run.
    """
    if below is not None and directory.resolve() != below.resolve() / directory.relative_to(below):
        return _pick_scripts((), settings, steps)  # behind a symlink, where a deploy does not look either
    try:
        with os.scandir(directory) as found:
            names = [e.name for e in found if not e.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        names = []
    except OSError as error:
        if below is not None and isinstance(error, NotADirectoryError):
            return _pick_scripts((), settings, steps)  # a file of the tree that only has the name
        raise PreflightRefused(f"cannot read {directory}: {error.strerror}", "correct the site's scripts") from error
    chosen = _pick_scripts(names, settings, steps)
    trusted = trusted_users(identity_of(settings.run_as, settings.owner))
    for step, name in chosen.items():
        path = directory / name
        try:
            os.close(open_checked(path, trusted, below, owned=bool(settings.owner)))
        except DeploykitError as error:
            raise PreflightRefused(error.problem, error.remedy) from error
        chosen[step] = str(path.relative_to(below)) if below is not None else str(path)
    return chosen


def _pick_scripts(names: Iterable[str], settings: SiteSettings, steps: tuple[str, ...] = SCRIPTS) -> dict[str, str]:
    """Pick `pre-deploy`, or `pre-deploy.sh`, `.py`, ...; two candidates are a refusal."""
    chosen: dict[str, str] = {}
    names = sorted(names)
    for step in steps:
        fitting = [n for n in names if n == step or n.startswith(step + ".")]
        if len(fitting) > 1:
            raise PreflightRefused(f"{' and '.join(fitting)}: which one is {step}?", "keep one of them")
        if fitting:
            chosen[step] = fitting[0]
    missing = [step for step in settings.required if step in steps and step not in chosen]
    if missing:
        where = settings.scripts or "(no scripts directory)"
        raise PreflightRefused(
            f"the required script {', '.join(missing)} is not in {where}", "add it, or take it from the site's required"
        )
    return chosen


def check_safe_to_run(scripts: Collection[str], settings: SiteSettings, environment: Environment) -> None:
    """Refuse scripts of a tree that others than the user they run as could change once it is written.

    Raises:
        PreflightRefused: its owner could, or by the umask everybody or a group.
    """
    if not scripts or settings.scripts.startswith("/"):
        return
    who = user_name(max(environment.trusted))
    what = f"the scripts in {settings.scripts} would run as {who}"
    if environment.owner is not None and environment.owner[0] not in environment.trusted:
        raise PreflightRefused(
            f"{what}, and {user_name(environment.owner[0])}, whom the release belongs to, could rewrite them",
            f'set run_as = "{AS_OWNER}", or keep the scripts in a directory that only {who} can change '
            '(such as scripts = "/etc/deploykit/scripts")',
        )
    umask, gid = umask_of(settings), environment.owner[1] if environment.owner is not None else os.getegid()
    if not umask & stat.S_IWOTH or not (umask & stat.S_IWGRP or is_private_group(gid, environment.trusted)):
        raise PreflightRefused(f"{what}, and others could rewrite them by umask {umask:03o}", "set umask = 0o022")


def environment_on_disk(site: Site, name: str, steps: tuple[str, ...] = SCRIPTS) -> Environment:
    """Return the environment for a release that is on disk, with the scripts of the steps that will run.

    Raises:
        PreflightRefused: one of them must not be run, or is missing.
    """
    settings = site.settings
    environment = environment_of(settings)
    release = site.release_path(name)
    if not settings.scripts:
        return environment
    outside = settings.scripts.startswith("/")
    directory = Path(settings.scripts) if outside else release / settings.scripts
    scripts = scripts_on_disk(directory, settings, below=None if outside else release, steps=steps)
    return attrs.evolve(environment, scripts=scripts)
