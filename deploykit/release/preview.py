"""Preview a deploy: the same checks and the same plan, with nothing touched."""

from __future__ import annotations

import contextlib
import os
from typing import Final

import attrs

from deploykit.errors import TreeError
from deploykit.names import ObjectId, RefName
from deploykit.release import preflight
from deploykit.release.build import options_of
from deploykit.release.environment import Environment
from deploykit.release.model import STEPS, Release, ReleasePart
from deploykit.release.ondisk import damage, is_live
from deploykit.release.plan import plan_deploy
from deploykit.release.requests import DeployRequest
from deploykit.release.resolve import resolve_request, version_of
from deploykit.release.site import Site, release_name
from deploykit.release.source import ResolvedTree, TreeSource, recall
from deploykit.system.boottime import boot_time
from deploykit.trees import TreeEntry, check_link, list_changes, list_tree
from deploykit.trees.lfsfiles import list_lfs_files, object_id

_SUBMODULE: Final = 0o160000


@attrs.frozen(kw_only=True, slots=True)
class PartPreview:
    """What a deploy would do to the files of one of a site's repositories.

    Args:
        path: its subdirectory of the release.
        ref, commit: what would be deployed; empty where it is none of the site's repositories any more.
        live_ref, live_commit: what is live; empty where nothing of it is.
        added, changed, removed: how many files.
    """

    repo: str
    path: str
    ref: str = ""
    commit: str = ""
    live_ref: str = ""
    live_commit: str = ""
    added: int = 0
    changed: int = 0
    removed: int = 0


@attrs.frozen(kw_only=True, slots=True)
class Preview:
    """What a deploy would do.

    Args:
        release: the name the new release would get; that of the live one when there is nothing to do.
        previous: the live release, or empty.
        commit, tag: what would be deployed; of several repositories their id, and their tags or branches.
        nothing_to_do: it is live already.
        build: `fresh`, or the release that would be recycled; that of `release` itself where it is prepared.
        steps: in order; scripts only where there are some.
        added, changed, removed: paths, compared with the live release's tree.
        parts: the same for each of several repositories.
        warning: what is worth knowing, or empty.
    """

    release: str
    previous: str
    commit: str
    tag: str
    nothing_to_do: bool = False
    build: str = "fresh"
    steps: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    parts: tuple[PartPreview, ...] = ()
    warning: str = ""


def preview(site: Site, source: TreeSource, request: DeployRequest) -> Preview:
    """Return what a deploy, or a preparation, would do.

    Raises:
        DeploykitError: what it would be refused for.
    """
    site.check_place()
    check_link(site.current_link)
    state = site.state()
    live = site.resolved_name()
    here = state.get(site.live_name())
    found = resolve_request(source, request, here)
    version, activate = version_of(found, request.ref), request.phase != "prepare"
    tag = version.tag
    if not request.again and is_live(site, state, version):
        return Preview(release=live, previous=live, commit=found.commit, tag=tag, nothing_to_do=True)
    preflight.check_not_older(source, here, version, request.allow, site.settings)
    environment, warning = preflight.check_all(source, found.tree, site, request.allow)
    plan = plan_deploy(
        state,
        live,
        now=boot_time(),
        grace=site.settings.grace,
        recycle=site.settings.recycle,
        scripts=environment.optional_steps(site.settings),
        activate=activate,
    )
    name, steps = release_name(plan.seq, tag, found.commit), plan.steps
    build = plan.recycle.name if plan.recycle is not None else "fresh"
    prepared = None if request.again or not activate else state.prepared(version.ref, version.commit)
    if prepared is not None and prepared.version == version and not damage(site, prepared.name):
        name = build = prepared.name
        steps = tuple(s for s in steps if s not in STEPS[: STEPS.index("activate")])
    else:
        preflight.check_objects(source, found, site, environment, plan.recycle)
    entries = [e for e in list_tree(source.store, found.tree, environment.rules) if e.mode != _SUBMODULE]
    added = [e.path for e in entries]
    changed: list[bytes] = []
    removed: list[bytes] = []
    if live and here is not None:
        try:
            added, changed, removed = _differences(site, source, here, found, entries, environment)
        except TreeError as error:
            warning = warning or f"all files count as added: {error.problem}"
    result = Preview(
        release=name,
        previous=live,
        commit=found.commit,
        tag=tag,
        build=build,
        steps=steps,
        added=tuple(sorted(map(os.fsdecode, added))),
        changed=tuple(sorted(map(os.fsdecode, changed))),
        removed=tuple(sorted(map(os.fsdecode, removed))),
        warning=warning,
    )
    return attrs.evolve(result, parts=_parts(result, version.parts, here.parts if live and here is not None else ()))


def _parts(whole: Preview, parts: tuple[ReleasePart, ...], live: tuple[ReleasePart, ...]) -> tuple[PartPreview, ...]:
    """Return what happens to each repository: those that would be deployed, and those that would go."""
    before = {part.repo: part for part in live}
    gone = [attrs.evolve(part, ref=RefName(""), commit=ObjectId("")) for part in live]
    after = {part.repo: part for part in (*gone, *parts)} if parts else {}

    def inside(paths: tuple[str, ...], *places: str) -> int:
        return sum(path.startswith(tuple(f"{place}/" for place in places)) for path in paths)

    found = []
    for repo, part in sorted(after.items()):
        was = before.get(repo)
        found.append(
            PartPreview(
                repo=repo,
                path=part.path,
                ref=part.ref,
                commit=part.commit,
                live_ref=was.ref if was is not None else "",
                live_commit=was.commit if was is not None else "",
                added=inside(whole.added, part.path),
                changed=inside(whole.changed, part.path),
                removed=inside(whole.removed, part.path, was.path if was is not None else part.path),
            )
        )
    return tuple(found)


def _differences(
    site: Site,
    source: TreeSource,
    live: Release,
    found: ResolvedTree,
    entries: list[TreeEntry],
    environment: Environment,
) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Return what is added, changed and removed against the live release: by the trees, or by its manifest.

    Raises:
        TreeError: its manifest cannot be read.
    """
    manifest = site.manifest(live.name)
    options = options_of(site, source, found, environment)
    if manifest.fingerprint == options.fingerprint:
        recall(source, live)
        with contextlib.suppress(TreeError):  # its tree is not in the mirror any more
            diff = list_changes(source.store, ObjectId(live.tree), found.tree, environment.rules)
            gone = [*diff.removed, *(d + b"/" for d in diff.removed_directories)]
            return [e.path for e in diff.added], [e.path for e in diff.changed], gone
    rows = {os.fsencode(row.path): row for row in manifest.rows() if not row.ours}
    was = {path: (row.mode, row.oid) for path, row in rows.items()}
    now = {e.path: (e.mode, e.oid.decode()) for e in entries}
    for file in list_lfs_files(source.store, found.tree, environment.rules, options):
        row = rows.get(file.path)
        alike = row is not None and row.size == file.pointer.size  # only then it is worth reading
        now[file.path] = now[file.path][0], object_id(file, options, manifest.oid_length) if alike else ""
    changed = [path for path in now if path in was and now[path] != was[path]]
    return [path for path in now if path not in was], changed, [path for path in was if path not in now]
