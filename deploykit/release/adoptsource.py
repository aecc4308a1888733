"""What a live directory is said to be made from: looked up, and which files it would then have."""

from __future__ import annotations

import os

import attrs

from deploykit.mirror.lfs.needs import lfs_places
from deploykit.release.adoption import Adoption
from deploykit.release.environment import rules_of
from deploykit.release.model import ReleaseVersion
from deploykit.release.partsource import PartSource
from deploykit.release.requests import Allowances, DeployRequest, Parts
from deploykit.release.resolve import resolve_commit, resolve_request, version_of
from deploykit.release.source import ResolvedTree, TreeSource, mounts_of
from deploykit.settings.site import SiteSettings
from deploykit.trees import WriteOptions
from deploykit.trees.livefiles import Entries, entries_written
from deploykit.trees.rules import CONVERTING


def version_live(source: TreeSource | None, ref: str, commit: str, parts: Parts) -> tuple[ReleaseVersion, str]:
    """Return version and tree of what is said to be live; both empty where there is no source.

    Raises:
        DeploykitError: there is no such thing.
    """
    if source is None:
        return ReleaseVersion(ref="", commit=""), ""
    request = DeployRequest(
        phase="deploy", ref=ref, commit=commit, request_id="", requested_by="", allow=Allowances(), parts=parts
    )
    found = resolve_request(source, request, None)
    version = version_of(found, ref)
    if version.ref == version.commit:  # it was named by its commit alone
        version = attrs.evolve(version, ref="")
    return version, found.tree


def entries_of(source: TreeSource | None, plan: Adoption, settings: SiteSettings) -> Entries:
    """Return the files that the directory would have; none where that is not known.

    A tree that a deploy would refuse is no obstacle: it is live.

    Raises:
        DeploykitError: it cannot be read.
    """
    if source is None or not plan.tree or isinstance(source, PartSource) != bool(plan.parts):
        return {}  # also where an adoption is gone on with by other words
    found: ResolvedTree
    if isinstance(source, PartSource):
        source = of_parts = source.at(plan.parts)
        found = of_parts.compose(plan.parts)
    else:
        found = resolve_commit(source, plan.ref or plan.commit, plan.commit, Allowances(moved=True))
    rules = attrs.evolve(rules_of(settings), symlinks="any", raw_attributes=CONVERTING)
    mounts = mounts_of(found)
    options = WriteOptions(
        commit="" if plan.parts else plan.commit,
        mounts=mounts,
        lfs=lfs_places(source, mounts),
        outside=frozenset(os.fsencode(path.rstrip("/")) for path in settings.shared),
    )
    return entries_written(source.store, found.tree, rules, options)
