"""Deploys on one machine: releases beside each other, one of them live, each provable and reversible.

    site = Site(Path("/srv/www"), SiteSettings(keep=3))
    result = Runner(site, node="web1").deploy(mirror, "refs/tags/v1.4", commit)

Needs no bus. What is done at which step, and what a crash at any instant leaves, is in docs/releases.md.
"""

from deploykit.release.model import DeployResult, Operation, Outcome, Release, ReleasePart, ReleaseVersion, StepRecord
from deploykit.release.partsource import PartSource
from deploykit.release.plan import RollbackPlan
from deploykit.release.preview import Preview
from deploykit.release.requests import Allowances, PartRequest
from deploykit.release.runner import Runner
from deploykit.release.site import Site
from deploykit.release.source import ResolvedTree, TreeSource

__all__ = [
    "Allowances",
    "DeployResult",
    "Operation",
    "Outcome",
    "PartRequest",
    "PartSource",
    "Preview",
    "Release",
    "ReleasePart",
    "ReleaseVersion",
    "ResolvedTree",
    "RollbackPlan",
    "Runner",
    "Site",
    "StepRecord",
    "TreeSource",
]
