"""Everything that can refuse a deploy before the first change: looked up here, so that a refusal touched nothing."""

from __future__ import annotations

import contextlib
import fnmatch
import os
from collections.abc import Callable, Iterable
from typing import Final

import attrs

from deploykit.errors import PolicyRefused, PreflightRefused, TreeError
from deploykit.git.commits import is_ancestor
from deploykit.mirror.lfs.needs import check_lfs
from deploykit.names import ObjectId
from deploykit.release.build import options_of
from deploykit.release.environment import Environment, environment_of
from deploykit.release.model import Release, ReleaseVersion
from deploykit.release.requests import Allowances
from deploykit.release.scriptfinder import check_safe_to_run, entry_name, scripts_in_tree
from deploykit.release.site import Site
from deploykit.release.source import ResolvedTree, TreeSource, recall
from deploykit.settings.site import SiteSettings
from deploykit.trees import Differences, Manifest, TreeRules, compare, list_directory

#: Free space asked for beyond what the live release takes, and free inodes beyond its files.
_SPARE_BYTES: Final = 16 * 1024 * 1024
_SPARE_INODES: Final = 256
_LISTED: Final = 5


def check_not_older(
    source: TreeSource, live: Release | None, version: ReleaseVersion, allow: Allowances, settings: SiteSettings
) -> None:
    """Refuse a commit that the live one already contains: a replayed old command has no effect.

    Of several repositories each is compared with its own.

    Raises:
        PolicyRefused: it is older, or one of them is.
    """
    if allow.older or settings.older == "allow" or live is None:
        return
    before, older = _by_repository(live.version), []
    for repo, new in _by_repository(version).items():
        old = before.get(repo)
        if old is not None and old.commit not in ("", new.commit) and is_ancestor(source.store, new.commit, old.commit):
            which = f"{repo}: " if repo else ""
            older.append(f"{which}{new.commit[:12]} is older than {old.commit[:12]}, which is live ({old.tag})")
    if older:
        raise PolicyRefused("; ".join(older), "use rollback to go back, or allow older commits")


def _by_repository(version: ReleaseVersion) -> dict[str, ReleaseVersion]:
    """Return each repository's own version; one that stands alone has an empty name."""
    if not version.parts:
        return {"": version}
    return {part.repo: ReleaseVersion(ref=part.ref, commit=part.commit) for part in version.parts}


def check_shared(source: TreeSource, tree: ObjectId, site: Site, rules: TreeRules) -> None:
    """Refuse a shared file that is neither there nor in the tree, and a shared path that is not inside the release.

    Raises:
        PreflightRefused: naming the path.
    """
    if site.settings.shared and os.path.lexists(site.shared_dir):
        try:
            os.close(site.open_shared())
        except OSError as error:
            raise PreflightRefused(
                f"cannot open {site.shared_dir}: {error.strerror}", "a directory must be there, or a symlink to one"
            ) from error
    for at, text in enumerate(site.settings.shared):
        path = text.rstrip("/")
        parts = path.split("/")
        if not path or text.startswith("/") or any(p in ("", ".", "..", ".deploykit", ".git") for p in parts):
            raise PreflightRefused(f"shared path {text!r} is not a path inside a release", "correct the site's shared")
        above = {"/".join(parts[:n]) for n in range(1, len(parts))}
        for n, other in enumerate(site.settings.shared):
            if other.rstrip("/") in above or (n != at and other.rstrip("/") == path):
                raise PreflightRefused(f"shared path {text!r} is within {other!r}, which is shared", "keep one of them")
        for way in sorted(above):
            if (site.shared_dir / way).is_symlink():
                raise PreflightRefused(
                    f"shared path {text!r}: {site.shared_dir / way} is a symlink, behind which nothing is shared",
                    f"share {way}/ itself, or mount there what the symlink leads to",
                )
        if text.endswith("/") or os.path.lexists(site.shared_dir / path):
            continue
        parent, _, name = path.rpartition("/")
        entries = list_directory(source.store, tree, parent, rules)
        if not any(entry_name(e) == name for e in entries):
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
    """Return the manifest of a release as it was finished; None where there is none.

    Raises:
        TreeError: it is damaged.
    """
    for path in (site.settled_file(name), site.manifest_file(name)):
        if name and path.exists():
            return Manifest.load(path)
    return None


def find_drift(
    site: Site, name: str, manifest: Manifest, *, paranoid: bool = False, tick: Callable[[], None] = lambda: None
) -> Differences:
    """Compare a release with its manifest, except for what `drift_ignore` lists; `tick` as for `compare`."""
    found = compare(manifest, site.release_path(name), paranoid=paranoid, tick=tick)
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
    """Return a warning where the live release was edited by hand, or an empty string.

    Raises:
        PolicyRefused: it was edited, and `drift` is "refuse".
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


def check_objects(
    source: TreeSource, found: ResolvedTree, site: Site, environment: Environment, recycled: Release | None = None
) -> None:
    """Refuse a tree that needs objects of Git LFS that are not there.

    Args:
        recycled: the release that becomes the new one, if one does: what it has already is not needed.

    Raises:
        LfsMissing: naming them.
        TreeError: they are larger than allowed, or the tree cannot be read.
    """
    options, manifest = options_of(site, source, found, environment), None
    if recycled is not None and options.lfs:
        recall(source, recycled)
        with contextlib.suppress(TreeError):  # then it is not recycled
            manifest = site.manifest(recycled.name)
    check_lfs(source.store, found.tree, environment.rules, options, manifest)


def check_all(source: TreeSource, tree: ObjectId, site: Site, allow: Allowances) -> tuple[Environment, str]:
    """Run every check that needs the tree or the disk; return the environment, and a warning or "".

    Raises:
        DeploykitError: a check that refuses.
    """
    environment = environment_of(site.settings)
    scripts = scripts_in_tree(source, tree, site.settings, environment.rules)
    check_safe_to_run(scripts, site.settings, environment)
    check_shared(source, tree, site, environment.rules)
    live, manifest, warning = site.resolved_name(), None, ""
    try:
        manifest = last_manifest(site, live)
    except TreeError as error:
        warning = f"the live release could not be compared with its manifest: {error}"
    if manifest is not None and site.settings.drift != "ignore":
        warning = check_drift(site, live, manifest, allow)
    check_space(site, manifest)
    return attrs.evolve(environment, scripts=scripts), warning
