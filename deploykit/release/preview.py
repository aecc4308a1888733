"""Preview a deploy: the same checks and the same plan, with nothing touched."""

from __future__ import annotations

import contextlib
import os
from typing import Final

import attrs

from deploykit.errors import TreeError
from deploykit.names import ObjectId
from deploykit.release import preflight
from deploykit.release.environment import Environment
from deploykit.release.model import STEPS, Release
from deploykit.release.ondisk import damage, is_live
from deploykit.release.plan import plan_deploy
from deploykit.release.requests import Allowances
from deploykit.release.site import Site, release_name
from deploykit.release.source import TreeSource
from deploykit.release.steps import tag_of
from deploykit.system.boottime import boot_time
from deploykit.trees import TreeEntry, check_link, list_changes, list_tree

_SUBMODULE: Final = 0o160000


@attrs.frozen(kw_only=True, slots=True)
class Preview:
    """What a deploy would do.

    Args:
        release: the name the new release would get; that of the live one when there is nothing to do.
        previous: the live release, or empty.
        commit, tag: what would be deployed.
        nothing_to_do: it is live already.
        build: `fresh`, or the release that would be recycled; that of `release` itself where it is prepared.
        steps: in order; scripts only where there are some.
        added, changed, removed: paths, compared with the live release's tree.
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
    warning: str = ""


def preview(
    site: Site,
    source: TreeSource,
    ref: str,
    commit: str,
    allow: Allowances,
    *,
    again: bool = False,
    activate: bool = True,
) -> Preview:
    """Return what a deploy would do.

    Args:
        again: make a new release although this one is live, or prepared, already.
        activate: all of it; else all but the switch.

    Raises:
        DeploykitError: what it would be refused for.
    """
    site.check_place()
    check_link(site.current_link)
    state = site.state()
    live = site.resolved_name()
    here = state.get(site.live_name())
    found = preflight.resolve_commit(source, ref, commit, allow)
    full = found.ref or ref
    tag = tag_of(full, found.commit)
    if not again and is_live(site, state, full, found.commit):
        return Preview(release=live, previous=live, commit=found.commit, tag=tag, nothing_to_do=True)
    preflight.check_not_older(source, here, found.commit, allow, site.settings)
    environment, warning = preflight.check_all(source, found.tree, site, allow)
    plan = plan_deploy(
        state,
        live,
        now=boot_time(),
        grace=site.settings.grace,
        recycle=site.settings.recycle,
        scripts=environment.optional_steps(site.settings),
        activate=activate,
    )
    name, build, steps = release_name(plan.seq, tag, found.commit), "fresh", plan.steps
    prepared = None if again or not activate else state.prepared(full, found.commit)
    if prepared is not None and not damage(site, prepared.name):
        name = build = prepared.name
        steps = tuple(s for s in steps if s not in STEPS[: STEPS.index("activate")])
    elif plan.recycle is not None:
        build = plan.recycle.name
    entries = [e for e in list_tree(source.store, found.tree, environment.rules) if e.mode != _SUBMODULE]
    added = [e.path for e in entries]
    changed: list[bytes] = []
    removed: list[bytes] = []
    if live and here is not None:
        try:
            added, changed, removed = _differences(site, source, here, found.tree, entries, environment)
        except TreeError as error:
            warning = warning or f"all files count as added: {error.problem}"
    return Preview(
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


def _differences(
    site: Site, source: TreeSource, live: Release, tree: ObjectId, entries: list[TreeEntry], environment: Environment
) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Return what is added, changed and removed against the live release: by the trees, or by its manifest.

    Raises:
        TreeError: its manifest cannot be read.
    """
    manifest = site.manifest(live.name)
    if manifest.fingerprint == environment.fingerprint:
        with contextlib.suppress(TreeError):  # its tree is not in the mirror any more
            diff = list_changes(source.store, ObjectId(live.tree), tree, environment.rules)
            gone = [*diff.removed, *(d + b"/" for d in diff.removed_directories)]
            return [e.path for e in diff.added], [e.path for e in diff.changed], gone
    was = {os.fsencode(row.path): (row.mode, row.oid) for row in manifest.rows() if not row.ours}
    now = {e.path: (e.mode, e.oid.decode()) for e in entries}
    changed = [path for path in now if path in was and now[path] != was[path]]
    return [path for path in now if path not in was], changed, [path for path in was if path not in now]
