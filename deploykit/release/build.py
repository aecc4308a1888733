"""The steps that make a release on disk: export, link what is shared, write what people want to read.

Each can be done again after a crash and comes to the same. Nothing here touches `current`.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import DeploykitError, ReleaseError
from deploykit.git.objectformat import blob_id
from deploykit.mirror.lfs.needs import lfs_places
from deploykit.names import ObjectId
from deploykit.release.environment import Environment
from deploykit.release.model import Release, ReleaseVersion
from deploykit.release.site import Site
from deploykit.release.source import ResolvedTree, TreeSource, mounts_of, parts_of, recall
from deploykit.system.durable import sync_filesystem
from deploykit.trees import CannotPatch, Manifest, WriteOptions, patch_tree, retake_manifest, write_tree
from deploykit.trees.copying import copy_across
from deploykit.trees.files import OpenDirectories, open_directory, put_file, put_symlink, remove_tree
from deploykit.trees.graft import fingerprint_with
from deploykit.trees.manifest import MODE, OURS, WIDTH, ManifestRows
from deploykit.trees.writer import Progress, next_tick, this_tick

_log = logging.getLogger(__name__)

_FILE: Final = 0o100644
_LINK: Final = 0o120000
REVISION: Final = ".deploykit/REVISION"
PARTS: Final = ".deploykit/PARTS"


@attrs.frozen(kw_only=True, slots=True)
class Exported:
    """The manifest of an export, and what it did in a line for people."""

    manifest: Manifest = attrs.field(repr=False)
    detail: str


def options_of(site: Site, source: TreeSource, found: ResolvedTree, environment: Environment) -> WriteOptions:
    """Return with which a site's tree is written."""
    mounts = mounts_of(found)
    lfs = lfs_places(source, mounts)
    return WriteOptions(
        durable=False,
        owner=environment.owner,
        outside=frozenset(os.fsencode(p.rstrip("/")) for p in site.settings.shared),
        fingerprint=fingerprint_with(environment.fingerprint, mounts, lfs),
        commit="" if parts_of(found) else found.commit,
        mounts=mounts,
        lfs=lfs,
    )


def export(
    site: Site,
    source: TreeSource,
    name: str,
    found: ResolvedTree,
    environment: Environment,
    recycled: Release | None,
    progress: Progress | None = None,
    *,
    final: bool = True,
) -> Exported:
    """Write the tree into `releases/NAME`, from a spare release where there is one.

    Args:
        found: the commit and its tree.
        final: the manifest is needed as it is; else `finalize` follows at once and makes its own.

    Raises:
        TreeError: the tree holds what must not be written.
        OSError: the file system refused.
    """
    tree = found.tree
    options = attrs.evolve(options_of(site, source, found, environment), tick=final, progress=progress)
    building, exported = site.building / name, None
    if recycled is not None:
        # Under a name of its own: it may hold files of another user, and then cannot be removed if it is of no use.
        building = site.building / f"{name}.recycled"
        exported = _recycle(site, source, recycled, building, tree, environment, options)
    if exported is None:
        building = site.building / name
        remove(site.building, name)
        manifest = write_tree(source.store, tree, building, environment.rules, options)
        exported = Exported(manifest=manifest, detail=f"{len(manifest)} files written")
    if final:
        exported.manifest.save(site.manifest_file(name), durable=False)
    building.rename(site.release_path(name))
    return exported


def _recycle(
    site: Site,
    source: TreeSource,
    spare: Release,
    building: Path,
    tree: ObjectId,
    environment: Environment,
    options: WriteOptions,
) -> Exported | None:
    """Turn a spare release into the new one; None where it must be written afresh, and the spare is gone."""
    try:
        manifest = site.manifest(spare.name)
        site.release_path(spare.name).rename(building)
        recall(source, spare)
        done = patch_tree(
            source.store, tree, building, manifest, environment.rules, options, paranoid=site.settings.paranoid
        )
    except CannotPatch as why:
        _log.info("%s is not recycled: %s", spare.name, why)
        return None
    except (DeploykitError, OSError) as error:
        # A tree that must not be written is refused by the fresh export as well; a broken spare is not.
        _log.info("%s could not be recycled: %s", spare.name, error)
        return None
    repaired = f", {done.repaired} brought back" if done.repaired else ""
    text = f"{spare.name} recycled: {done.written} files written, {done.removed} removed{repaired}"
    return Exported(manifest=done.manifest, detail=text)


def remove(directory: Path, name: str) -> None:
    """Remove an entry of a directory, if it is there, with all below it."""
    fd = open_directory(directory)
    try:
        remove_tree(name, fd)
    finally:
        os.close(fd)


def link_shared(site: Site, name: str, manifest: Manifest, environment: Environment) -> Manifest:
    """Put links to `shared/` into the release, and return the manifest with them.

    What the tree has under such a name is moved to `shared/` the first time, and removed after that.
    """
    paths = [p.rstrip("/") for p in site.settings.shared]
    if not paths:
        return manifest
    hidden = tuple(p + "/" for p in paths)
    drop = {at for at, p in enumerate(manifest.paths) if p in paths or p.startswith(hidden)}
    rows = ManifestRows.without(manifest, drop)
    rows.directories = {d for d in rows.directories if d not in paths and not d.startswith(hidden)}
    release = open_directory(site.release_path(name))
    try:
        shared = site.open_shared()
    except BaseException:
        os.close(release)
        raise
    try:
        with OpenDirectories(release) as inside, OpenDirectories(shared) as outside:
            for text in site.settings.shared:
                path = text.rstrip("/")
                parent, _, last = path.rpartition("/")
                at = inside.open(parent, create=True, umask=environment.rules.umask, owner=environment.owner)
                there = outside.open(parent, create=True, umask=environment.rules.umask, owner=environment.owner)
                _seed(text, last, at, there, environment, durable=site.settings.durable)
                target = os.fsencode("../" * (path.count("/") + 2) + "shared/" + path)
                seen = put_symlink(last, at, target, owner=environment.owner)
                rows.add(path, _LINK, seen, blob_id(target, rows.oid_length), ours=True)
                while parent:
                    rows.directories.add(parent)
                    parent = parent.rpartition("/")[0]
    finally:
        os.close(release)
        os.close(shared)
    return rows.finish(
        tree=manifest.tree, fingerprint=manifest.fingerprint, device=manifest.device, taken_ns=manifest.taken_ns
    )


def _seed(text: str, name: str, at: int, there: int, environment: Environment, *, durable: bool) -> None:
    """Remove what is in the place of the link; make its target from it, or anew, where the target is missing."""
    try:
        os.stat(name, dir_fd=there, follow_symlinks=False)
    except FileNotFoundError:
        try:
            _move(name, at, there, durable=durable)
        except FileNotFoundError:
            if not text.endswith("/"):
                raise ReleaseError(f"the shared file {text} is missing", "create it in shared/") from None
            with OpenDirectories(there) as made:
                made.open(name, create=True, umask=environment.rules.umask, owner=environment.owner)
    remove_tree(name, at)


def _move(name: str, at: int, there: int, *, durable: bool) -> None:
    """Move an entry to another directory; on another file system it is a copy, and the caller removes the source."""
    try:
        os.rename(name, name, src_dir_fd=at, dst_dir_fd=there)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy_across(name, at, there, durable=durable)


def finalize(site: Site, name: str, manifest: Manifest, environment: Environment, version: ReleaseVersion) -> Manifest:
    """Write TAG and REVISION for people, PARTS where there are some, and return the manifest of the finished release.

    A file of that name in the tree stays as it is.
    """
    ours = {manifest.paths[at]: at for at, mode in enumerate(manifest.numbers[MODE::WIDTH]) if mode > OURS}
    files = {"TAG": f"Tag: {version.tag}\n", REVISION: f"{version.commit}\n"}
    if version.parts:
        files[PARTS] = "".join(f"{part.repo} {part.ref} {part.commit} {part.path}\n" for part in version.parts)
    rows = ManifestRows.without(manifest, {ours[p] for p in files if p in ours})
    if site.settings.state_files:
        tracked = set(manifest.paths).difference(ours)
        release = open_directory(site.release_path(name))
        try:
            with OpenDirectories(release) as inside:
                for path, text in files.items():
                    parent, _, last = path.rpartition("/")
                    if path in tracked or parent in tracked or path in manifest.directories:
                        continue
                    fd = inside.open(parent, create=True, umask=environment.rules.umask, owner=environment.owner)
                    remove_tree(last, fd)
                    content = text.encode()
                    umask = environment.rules.umask
                    seen = put_file(last, fd, content, mode=0o666, umask=umask, owner=environment.owner)
                    rows.add(path, _FILE, seen, blob_id(content, rows.oid_length), ours=True)
                    if parent:
                        rows.directories.add(parent)
        finally:
            os.close(release)
    done = rows.finish(
        tree=manifest.tree, fingerprint=manifest.fingerprint, device=manifest.device, taken_ns=this_tick()
    )
    done.save(site.manifest_file(name), durable=False)
    return done


def barrier(site: Site, fd: int) -> None:
    """Wait until everything written so far is on disk. `fd` was opened before the first write.

    Raises:
        OSError: the disk reported an error; nothing of it may be relied on.
    """
    if site.settings.durable:
        sync_filesystem(fd)


def settle_release(site: Site, name: str) -> None:
    """Note how the scripts left the release, so that a later edit by hand is not taken for their work."""
    try:
        retake_manifest(site.manifest(name), site.release_path(name), next_tick()).save(
            site.settled_file(name), durable=site.settings.durable
        )
    except (OSError, DeploykitError, RecursionError) as error:  # too deep: scripts may make what they like
        _log.warning("could not note the state of %s after its scripts: %s", name, error)


def sweep(site: Site, gone: set[str]) -> list[str]:
    """Remove releases that are no longer kept, and what a crash left. Return what could not be removed.

    A release is renamed out of `releases/` first, so that a half removed one is never seen there.
    """
    problems: list[str] = []
    for path in site.releases_dir.iterdir():
        if path.name in gone:
            try:
                path.rename(site.trash / path.name)
            except OSError as error:
                problems.append(f"{path.name}: {error.strerror}")
    for path in site.manifest_file("").parent.iterdir():
        if path.stem in gone:
            path.unlink(missing_ok=True)
    for directory in (site.trash, site.building):
        for path in directory.iterdir():
            try:
                remove(directory, path.name)
            except OSError as error:
                problems.append(f"{directory.name}/{path.name}: {error.strerror}")
    return problems
