"""What a deploy would do: the same checks and the same plan, and nothing is touched."""

from __future__ import annotations

import os

import attrs

from deploykit.errors import TreeError
from deploykit.release import preflight
from deploykit.release.boot import moment
from deploykit.release.operation import tag_of
from deploykit.release.plan import plan_deploy
from deploykit.release.preflight import Allowances
from deploykit.release.site import Site, release_name
from deploykit.release.source import TreeSource
from deploykit.trees import check_link, list_changes, list_tree


@attrs.frozen(kw_only=True, slots=True)
class Preview:
    """What a deploy would do.

    Args:
        release: the name the new release would get; that of the live one when there is nothing to do.
        previous: the live release, or empty.
        commit, tag: what would be deployed.
        nothing_to_do: it is live already.
        build: `fresh`, or the name of the release that would be recycled.
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


def preview(site: Site, source: TreeSource, ref: str, commit: str, allow: Allowances) -> Preview:
    """Check and plan a deploy.

    Raises:
        DeploykitError: what it would be refused for.
    """
    check_link(site.current_link)
    state = site.state()
    live = site.live_name()
    here = state.get(live)
    found = preflight.resolve_commit(source, ref, commit, allow)
    tag = tag_of(found.ref or ref, found.commit)
    if here is not None and (here.commit, here.tag, here.status) == (found.commit, tag, "good"):
        return Preview(release=live, previous=live, commit=found.commit, tag=tag, nothing_to_do=True)
    preflight.check_not_older(source, here, found.commit, allow, site.settings)
    ground, warning = preflight.look(source, found.tree, site, allow)
    plan = plan_deploy(
        state,
        live,
        now=moment(),
        grace=site.settings.grace,
        recycle=site.settings.recycle,
        scripts=ground.optional_steps(site.settings),
        activate=True,
    )
    added: list[bytes] = []
    changed: list[bytes] = []
    removed: list[bytes] = []
    every = [e.path for e in list_tree(source.store, found.tree, ground.rules)]
    if here is None:
        added = every
    else:
        try:
            diff = list_changes(source.store, here.tree, found.tree, ground.rules)  # type: ignore[arg-type]
        except TreeError:
            added = every
            warning = warning or f"the tree of {live} is not in the mirror any more, so all files count as added"
        else:
            added = [e.path for e in diff.added]
            changed = [e.path for e in diff.changed]
            removed = [*diff.removed, *(d + b"/" for d in diff.removed_directories)]
    return Preview(
        release=release_name(plan.seq, tag, found.commit),
        previous=live,
        commit=found.commit,
        tag=tag,
        build=plan.recycle.name if plan.recycle is not None else "fresh",
        steps=plan.steps,
        added=tuple(sorted(map(os.fsdecode, added))),
        changed=tuple(sorted(map(os.fsdecode, changed))),
        removed=tuple(sorted(map(os.fsdecode, removed))),
        warning=warning,
    )
