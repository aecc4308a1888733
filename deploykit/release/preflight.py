"""Everything that can refuse a deploy before the first change: looked up here, so that a refusal touched nothing."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import posixpath
import stat
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import DeploykitError, InvalidName, PolicyRefused, PreflightRefused, TreeError
from deploykit.git.commitwalk import is_ancestor
from deploykit.git.objectreader import BLOB, ObjectReader
from deploykit.names import ObjectId, parse_object_id
from deploykit.release.model import SCRIPTS, Release
from deploykit.release.scripts import open_checked
from deploykit.release.site import Site
from deploykit.release.source import ResolvedTree, TreeSource
from deploykit.settings.site import SiteSettings
from deploykit.system.ownership import is_private_group, user_name
from deploykit.system.users import AS_OWNER, Identity, identity_of, owner_of, trusted_users
from deploykit.trees import Differences, Manifest, TreeEntry, TreeRules, compare, list_directory
from deploykit.trees.files import process_umask
from deploykit.trees.rules import rules_of as tree_rules_of

_EXECUTABLE: Final = 0o100755
_SYMLINK: Final = 0o120000
_DIRECTORY: Final = 0o040000
_MAX_LINKS: Final = 8
_MAX_TARGET: Final = 4096
#: Free space asked for beyond what the live release takes, and free inodes beyond its files.
_SPARE_BYTES: Final = 16 * 1024 * 1024
_SPARE_INODES: Final = 256
_LISTED: Final = 5


@attrs.frozen(kw_only=True, slots=True)
class Allowances:
    """What a caller permits for one deploy, beyond the settings.

    Args:
        moved: the ref may point elsewhere than at the commit by now.
        older: the commit may be one that the live release already contains.
        drift: files edited by hand may be replaced although the settings say refuse.
    """

    moved: bool = False
    older: bool = False
    drift: bool = False


@attrs.frozen(kw_only=True, slots=True)
class Environment:
    """What the settings come to on this machine.

    Args:
        scripts: step -> path below the release, or an absolute one.
    """

    rules: TreeRules
    fingerprint: str
    identity: Identity | None
    owner: tuple[int, int] | None
    trusted: frozenset[int]
    scripts: dict[str, str] = attrs.field(factory=dict)

    def optional_steps(self, settings: SiteSettings) -> frozenset[str]:
        """The steps that not every site has."""
        return frozenset(self.scripts) | ({"health-url"} if settings.health_url else frozenset())


def rules_of(settings: SiteSettings) -> TreeRules:
    """The part of a site's settings that says how a tree is written."""
    return attrs.evolve(
        tree_rules_of(settings),
        max_depth=settings.max_depth,
        max_file_bytes=settings.max_file_bytes,
        export_attributes=settings.export_attributes,
        subdirectory=settings.subdirectory,
    )


def ground_of(settings: SiteSettings) -> Environment:
    """Look up users and rules.

    Raises:
        PreflightRefused: a user is unknown, or we may not become it.
    """
    rules = rules_of(settings)
    owner, identity = owner_of(settings.owner), identity_of(settings.run_as, settings.owner)
    umask = _umask_of(settings)
    lasting = attrs.evolve(rules, max_entries=0, max_bytes=0, max_depth=0, max_file_bytes=0)
    text = repr((lasting, owner, umask, tuple(sorted(settings.shared)), settings.state_files))
    return Environment(
        rules=rules,
        fingerprint=hashlib.sha256(text.encode()).hexdigest()[:16],
        identity=identity,
        owner=owner,
        trusted=trusted_users(identity),
    )


def _umask_of(settings: SiteSettings) -> int:
    return settings.umask if settings.umask is not None else process_umask()


def resolve_commit(source: TreeSource, ref: str, commit: str, allow: Allowances) -> ResolvedTree:
    """Look up what to deploy: the commit that was decided on, never whatever the ref points at by now.

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


def check_not_older(
    source: TreeSource, live: Release | None, commit: ObjectId, allow: Allowances, settings: SiteSettings
) -> None:
    """Refuse a commit that the live one already contains: whoever replays an old command gets nowhere.

    Raises:
        PolicyRefused: it is older.
    """
    if allow.older or settings.older == "allow" or live is None or live.commit == commit:
        return
    if is_ancestor(source.store, commit, live.commit):
        raise PolicyRefused(
            f"{commit[:12]} is older than {live.commit[:12]}, which is live ({live.tag})",
            "use rollback to go back, or allow older commits",
        )


def scripts_in_tree(source: TreeSource, tree: ObjectId, settings: SiteSettings, rules: TreeRules) -> dict[str, str]:
    """Find the scripts a tree brings along, before it is written.

    Raises:
        PreflightRefused: a required one is missing, or one is not executable.
    """
    if not settings.scripts:
        return _chosen((), settings)
    if settings.scripts.startswith("/"):
        return scripts_on_disk(Path(settings.scripts), settings)
    entries = list_directory(source.store, tree, settings.scripts, rules)
    where = "" if entries else _linked_to(source, tree, settings.scripts, rules)
    if where and _chosen((_name(e) for e in list_directory(source.store, tree, where, rules)), settings):
        raise PreflightRefused(
            f"the scripts in {where} would not run: {settings.scripts} leads there by a symlink",
            f'set scripts = "{where}", or "" for none',
        )
    names = {_name(e): e.mode for e in entries if e.mode != _DIRECTORY}
    chosen = _chosen(names, settings)
    for step, name in chosen.items():
        mode = names[name]
        if mode != _EXECUTABLE:
            why = "is a symlink" if mode == _SYMLINK else "is not executable"
            raise PreflightRefused(
                f"{settings.scripts}/{name} {why}", f"git update-index --chmod=+x {settings.scripts}/{name}"
            )
        chosen[step] = f"{settings.scripts.strip('/')}/{name}"
    return chosen


def _name(entry: TreeEntry) -> str:
    return os.fsdecode(entry.path.rpartition(b"/")[2])


def _linked_to(source: TreeSource, tree: ObjectId, path: str, rules: TreeRules) -> str:
    """Where a path that goes through symlinks of the tree leads in it; empty where it goes through none, or nowhere."""
    parts, linked = [p for p in path.split("/") if p], False
    for _ in range(_MAX_LINKS):
        here = ""
        for at, part in enumerate(parts):
            found = next((e for e in list_directory(source.store, tree, here, rules) if _name(e) == part), None)
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
    """Find the scripts in a directory, checked so far as they can be before they run.

    Args:
        below: give paths relative to this directory.
        steps: those that will run; what is wrong with another one is no obstacle.

    Raises:
        PreflightRefused: a required one is missing, or one may not be run.
    """
    if below is not None and directory.resolve() != below.resolve() / directory.relative_to(below):
        return _chosen((), settings, steps)  # behind a symlink, where a deploy does not look either
    try:
        with os.scandir(directory) as found:
            names = [e.name for e in found if not e.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        names = []
    except OSError as error:
        if below is not None and isinstance(error, NotADirectoryError):
            return _chosen((), settings, steps)  # a file of the tree that only has the name
        raise PreflightRefused(f"cannot read {directory}: {error.strerror}", "correct the site's scripts") from error
    chosen = _chosen(names, settings, steps)
    trusted = trusted_users(identity_of(settings.run_as, settings.owner))
    for step, name in chosen.items():
        path = directory / name
        try:
            os.close(open_checked(path, trusted, below, owned=bool(settings.owner)))
        except DeploykitError as error:
            raise PreflightRefused(error.problem, error.remedy) from error
        chosen[step] = str(path.relative_to(below)) if below is not None else str(path)
    return chosen


def _chosen(names: Iterable[str], settings: SiteSettings, steps: tuple[str, ...] = SCRIPTS) -> dict[str, str]:
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


def check_safe_to_run(scripts: Collection[str], settings: SiteSettings, ground: Environment) -> None:
    """Refuse scripts of a tree that others than the user they run as could change once it is written.

    Raises:
        PreflightRefused: its owner could, or by the umask everybody or a group.
    """
    if not scripts or settings.scripts.startswith("/"):
        return
    who = user_name(max(ground.trusted))
    what = f"the scripts in {settings.scripts} would run as {who}"
    if ground.owner is not None and ground.owner[0] not in ground.trusted:
        raise PreflightRefused(
            f"{what}, and {user_name(ground.owner[0])}, whom the release belongs to, could rewrite them",
            f'set run_as = "{AS_OWNER}", or keep the scripts in a directory that only {who} can change '
            '(scripts = "/etc/deploykit/scripts", say)',
        )
    umask, gid = _umask_of(settings), ground.owner[1] if ground.owner is not None else os.getegid()
    if not umask & stat.S_IWOTH or not (umask & stat.S_IWGRP or is_private_group(gid, ground.trusted)):
        raise PreflightRefused(f"{what}, and others could rewrite them by umask {umask:03o}", "set umask = 0o022")


def check_shared(source: TreeSource, tree: ObjectId, site: Site, rules: TreeRules) -> None:
    """A shared file must be there, or come with the tree; a shared path must be one inside the release.

    Raises:
        PreflightRefused: it is neither, or the path is not usable.
    """
    for at, text in enumerate(site.settings.shared):
        path = text.rstrip("/")
        parts = path.split("/")
        if not path or text.startswith("/") or any(p in ("", ".", "..", ".deploykit", ".git") for p in parts):
            raise PreflightRefused(f"shared path {text!r} is not a path inside a release", "correct the site's shared")
        above = {"/".join(parts[:n]) for n in range(1, len(parts))}
        for n, other in enumerate(site.settings.shared):
            if other.rstrip("/") in above or (n != at and other.rstrip("/") == path):
                raise PreflightRefused(f"shared path {text!r} is within {other!r}, which is shared", "keep one of them")
        if text.endswith("/") or os.path.lexists(site.shared_dir / path):
            continue
        parent, _, name = path.rpartition("/")
        entries = list_directory(source.store, tree, parent, rules)
        if not any(_name(e) == name for e in entries):
            raise PreflightRefused(
                f"the shared file {site.shared_dir / path} is missing",
                f"create it, or write {path}/ in shared if it is a directory",
            )


def check_space(site: Site, live: Manifest | None) -> None:
    """Refuse when the disk cannot hold one more release of the live one's size.

    Raises:
        PreflightRefused: too few bytes or inodes are free.
    """
    size, files = _SPARE_BYTES, _SPARE_INODES
    if live is not None:
        size += live.total_bytes
        files += len(live) + len(live.directories)
    free = os.statvfs(next(path for path in (site.path, *site.path.parents) if path.exists()))
    if free.f_bavail * free.f_frsize < size:
        raise PreflightRefused(
            f"{site.path} has {free.f_bavail * free.f_frsize} bytes free, a release needs about {size}",
            "free some space, or keep fewer releases",
        )
    if free.f_files and free.f_favail < files:
        raise PreflightRefused(
            f"{site.path} has {free.f_favail} inodes free, a release needs about {files}",
            "remove some files, or keep fewer releases",
        )


def last_manifest(site: Site, name: str) -> Manifest | None:
    """Load what a release was like when it was finished; None where that was never noted.

    Raises:
        TreeError: it is damaged.
    """
    for path in (site.settled_file(name), site.manifest_file(name)):
        if name and path.exists():
            return Manifest.load(path)
    return None


def find_drift(site: Site, name: str, manifest: Manifest, *, paranoid: bool = False) -> Differences:
    """Compare a release with its manifest, but for what the settings say may change."""
    found = compare(manifest, site.release_path(name), paranoid=paranoid)
    patterns = site.settings.drift_ignore
    if not patterns:
        return found

    def kept(paths: Iterable[str], end: str = "") -> tuple[str, ...]:
        return tuple(p for p in paths if not any(fnmatch.fnmatch(p + end, pattern) for pattern in patterns))

    return Differences(
        modified=kept(found.modified),
        missing=kept(found.missing),
        added=kept(found.added),
        added_directories=kept(found.added_directories, "/"),
    )


def check_drift(site: Site, live: str, manifest: Manifest, allow: Allowances) -> str:
    """Look whether the live release was edited by hand; return a warning, or an empty string.

    Raises:
        PolicyRefused: it was, and the settings say to refuse.
    """
    try:
        found = find_drift(site, live, manifest)
    except OSError as error:
        return f"the live release could not be compared with its manifest: {error}"
    if not found:
        return ""
    lines = found.lines()
    more = f" and {len(lines) - _LISTED} more" if len(lines) > _LISTED else ""
    text = f"the live release {live} was edited by hand: {', '.join(lines[:_LISTED])}{more}"
    if site.settings.drift == "refuse" and not allow.drift:
        raise PolicyRefused(text, "look at it with `deploykit release verify`; bring the edits into the repository")
    return text


def look(source: TreeSource, tree: ObjectId, site: Site, allow: Allowances) -> tuple[Environment, str]:
    """Run every check that needs the tree or the disk; return what the settings come to, and a warning or "".

    Raises:
        DeploykitError: a check that refuses.
    """
    ground = ground_of(site.settings)
    scripts = scripts_in_tree(source, tree, site.settings, ground.rules)
    check_safe_to_run(scripts, site.settings, ground)
    check_shared(source, tree, site, ground.rules)
    live, manifest, warning = site.resolved_name(), None, ""
    try:
        manifest = last_manifest(site, live)
    except TreeError as error:
        warning = f"the live release could not be compared with its manifest: {error}"
    if manifest is not None and site.settings.drift != "ignore":
        warning = check_drift(site, live, manifest, allow)
    check_space(site, manifest)
    return attrs.evolve(ground, scripts=scripts), warning
