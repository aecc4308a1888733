"""Compare a release that the records call good with the disk, before it is chosen and before it is live."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from deploykit.errors import DeploykitError
from deploykit.release.model import Release, ReleaseVersion
from deploykit.release.plan import RollbackPlan, plan_rollback
from deploykit.release.preflight import find_drift, last_manifest
from deploykit.release.site import Site
from deploykit.release.state import SiteRecord
from deploykit.trees import Differences, Manifest

_LISTED: Final = 3


def damage(site: Site, name: str, *, edits: bool = False, unfinished: bool = False) -> str:
    """Return why a release must not go live, or an empty string where it is as it was when it was finished.

    Added files do no harm; nor does a change or loss of files that only scripts wrote.

    Args:
        edits: take it whatever was changed in it, as long as its directory is there.
        unfinished: scripts and links may have changed it since its manifest was written: only what is missing counts.
    """
    if not site.has(name):
        return f"the directory of {name} is gone"
    if edits:
        return ""
    try:
        manifest = last_manifest(site, name)
        if manifest is None:
            return f"{name} has no manifest: it was never finished"
        found = find_drift(site, name, manifest)
        written = set(site.manifest(name).paths) if found.missing else set()
    except (DeploykitError, OSError) as error:
        return f"{name} cannot be compared with its manifest: {error}"
    shared = tuple(path.rstrip("/") + "/" for path in site.settings.shared) if unfinished else ()
    lines = [f"missing {path}" for path in found.missing if path in written and not f"{path}/".startswith(shared)]
    if not unfinished and site.settings.drift != "ignore":
        lines += [f"modified {path}" for path in _of_the_tree(manifest, found)]
    more = f" and {len(lines) - _LISTED} more" if len(lines) > _LISTED else ""
    return f"{name} is not as it was deployed: {', '.join(sorted(lines)[:_LISTED])}{more}" if lines else ""


def is_live(site: Site, state: SiteRecord, version: ReleaseVersion) -> bool:
    """Return whether a release of exactly that version is live, good, and whole on disk."""
    here = state.get(site.resolved_name())
    fits = here is not None and (here.version, here.status) == (version, "good")
    return fits and here is not None and not damage(site, here.name)


def is_empty(site: Site, name: str) -> bool:
    """Return whether nothing is left of a release: no directory, or none of its files in it."""
    if not site.has(name):
        return True
    try:
        manifest = last_manifest(site, name)
        return manifest is not None and 0 < len(manifest) == len(find_drift(site, name, manifest).missing)
    except (DeploykitError, OSError):
        return False


def newest_whole(site: Site, state: SiteRecord, *, but: str) -> Release | None:
    """Return the newest good release that is whole on disk and is not the one named `but`, if any."""
    good = (r for r in reversed(state.releases) if r.status == "good" and r.present and r.name != but)
    return next((r for r in good if not damage(site, r.name)), None)


def find_rollback(
    site: Site, state: SiteRecord, to: str = "", *, ref: str = "", can_rebuild: bool = False, edits: bool = False
) -> RollbackPlan:
    """Plan a way back to a release that is whole on disk. Arguments as for `plan_rollback`.

    Args:
        edits: a release that was edited by hand will do.
    """
    broken: Mapping[str, str] = {}
    while True:
        plan = plan_rollback(state, site.live_name(), to, ref=ref, can_rebuild=can_rebuild, broken=broken)
        if plan.target is None or plan.kind == "rebuild" or plan.target.name in broken or not plan.target.present:
            return plan
        problem = damage(site, plan.target.name, edits=edits)
        if not problem:
            return plan
        broken = {**broken, plan.target.name: problem}


def _of_the_tree(manifest: Manifest, found: Differences) -> list[str]:
    """Return the changed files that the commit holds: what scripts wrote was never hashed."""
    changed = set(found.modified)
    if not changed:
        return []
    size, unknown = manifest.oid_length, bytes(manifest.oid_length)
    known = (p for at, p in enumerate(manifest.paths) if manifest.oids[at * size : (at + 1) * size] != unknown)
    return [path for path in known if path in changed]
