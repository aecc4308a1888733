"""The answer to a request that comes again: from the record, and only while the disk still holds what it says."""

from __future__ import annotations

import logging

from deploykit.errors import PreflightRefused, ReleaseError
from deploykit.release.model import DeployResult, Phase, Release, ReleaseVersion, refused
from deploykit.release.ondisk import damage
from deploykit.release.requests import DeployRequest, ReleaseRequest
from deploykit.release.site import Site
from deploykit.release.state import SiteRecord

_log = logging.getLogger(__name__)


def recorded_answer(
    site: Site, state: SiteRecord, phase: Phase, request: DeployRequest | ReleaseRequest
) -> DeployResult | None:
    """Return the answer to a request that was carried out before, or None where it was not."""
    known = state.answered(request.request_id)
    if known is None or known.outcome == "" or known.outcome == "interrupted":  # noqa: PLR1714 - mypy narrows by it
        return None
    other_commit = request.commit and known.commit and not known.commit.startswith(request.commit)
    other_ref = request.ref.startswith("refs/") and known.ref.startswith("refs/") and request.ref != known.ref
    if known.phase != phase or other_commit or other_ref:
        used = " ".join(filter(None, (f"{known.phase} of", known.ref, known.commit[:12])))
        return refused(PreflightRefused(f"request {request.request_id} was used for {used}"))
    _log.info("request %s was carried out before: %s", request.request_id, known.outcome)
    error = None if known.outcome == "success" else ReleaseError(known.detail)
    return DeployResult(
        outcome=known.outcome,
        release=known.release,
        steps=site.steps(known),
        detail=known.detail,
        error=error,
        again=True,
    )


def lost_since(site: Site, state: SiteRecord, phase: Phase, answer: DeployResult) -> str:
    """Return what is wrong with the release of a recorded success that should still be there, or an empty string.

    A release that others followed may have been pruned, and no request asks for it to come back.
    """
    prepared = next((r.name for r in reversed(state.releases) if r.status == "prepared"), "")
    due = prepared if phase == "prepare" else site.live_name()
    return damage(site, due) if answer.outcome == "success" and answer.release == due else ""


def parked_release(state: SiteRecord, request_id: str, version: ReleaseVersion) -> Release | None:
    """Return the whole release that a crash left behind, made for this very request, or None."""
    known = state.answered(request_id)
    if known is None or known.outcome != "interrupted" or known.commit != version.commit:
        return None
    release = state.get(known.release)
    if release is None or not release.present or release.status != "interrupted":
        return None
    return release if release.parts == version.parts else None
