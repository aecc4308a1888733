"""What a node says of one site: read from the site's own records and its directory, never from a command.

Rules:

* Nothing here raises and nothing takes the site's lock: a site that is being deployed to is described as it is.
* What the site asks of mandates is what the node's settings say, whatever its records look like.
* The comparison with the manifest reads only what looks changed, and not for longer than it may.
"""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from typing import Final

import attrs

from deploykit.errors import DeploykitError, InvalidName, MessageError
from deploykit.messages import SitePart, SiteRelease, one_line
from deploykit.messages.node import SiteOperation, SiteState
from deploykit.names import ObjectId, RefName, SiteName, parse_object_id, parse_ref_name
from deploykit.release import DeployResult, Operation, Release, Runner, Site
from deploykit.release.preflight import find_drift, last_manifest
from deploykit.release.state import SiteRecord
from deploykit.settings.site import NodeSiteSettings

#: Seconds that the comparison of one site with its manifest may take.
DRIFT_SECONDS: Final = 5.0
_DETAIL: Final = 300


class _TooLong(Exception):
    """The comparison took longer than it may."""


def describe_site(
    name: SiteName, settings: NodeSiteSettings, *, drift: bool = False, history: int = 0
) -> tuple[SiteState, tuple[str, ...]]:
    """Return a site's state, and what is missing from it, a line each.

    Args:
        name: what the node calls it.
        settings: where it is.
        drift: compare the live release with its manifest.
        history: how many operations to list.
    """
    state = SiteState(
        site=name,
        repo=settings.repos[0],
        repos=settings.repos if settings.parts else (),
        require=settings.require,
        signatures=settings.signatures,
    )
    site = Site(settings.path, settings.release)
    try:
        if not site.exists():
            return state, ()
        record = site.state()
        seen = Runner(site).with_site_state(DeployResult(outcome="success"))
        linked = site.live_name()
    except (DeploykitError, OSError) as error:
        return attrs.evolve(state, problem=one_line(str(error))), ()
    if seen.live is not None:
        live = release_of(seen.live)
        state = attrs.evolve(
            state,
            release=live.release,
            ref=live.ref,
            commit=live.commit,
            parts=live.parts,
            since=when(seen.live.activated),
        )
    elif linked:
        gone = "is not in the records" if site.has(linked) else "does not exist: nothing is live"
        state = attrs.evolve(state, problem=one_line(f"current points at {linked}, which {gone}"))
    prepared = next((r for r in reversed(record.releases) if r.present and r.status == "prepared"), None)
    ended = next((o for o in reversed(record.operations) if o.outcome), None)
    state = attrs.evolve(
        state,
        previous=named_release(seen.previous),
        prepared=named_release(prepared),
        last=operation_of(ended, record) if ended is not None else None,
        history=tuple(operation_of(each, record) for each in record.operations[::-1][:history]),
    )
    if not drift or seen.live is None:
        return state, ()
    modified, problem = count_drift(site, seen.live.name)
    return attrs.evolve(state, modified=modified), (f"drift of {name}: {problem}",) if problem else ()


def count_drift(site: Site, release: str, *, seconds: float = DRIFT_SECONDS) -> tuple[int | None, str]:
    """Return how many paths of a release differ from its manifest; or None, and why that is not known."""
    end = time.monotonic() + seconds

    def tick() -> None:
        if time.monotonic() >= end:
            raise _TooLong

    try:
        manifest = last_manifest(site, release)
        if manifest is None:
            return None, "there is no manifest"
        found = find_drift(site, release, manifest, tick=tick)
    except _TooLong:
        return None, f"not counted within {seconds:g} s"
    except (DeploykitError, OSError):
        return None, "the release cannot be compared with its manifest"
    return len(found.modified) + len(found.missing) + len(found.added) + len(found.added_directories), ""


def operation_of(operation: Operation, record: SiteRecord) -> SiteOperation:
    """Return an operation of the site's records as a message has it; which parts it was about, its release says."""
    ref, commit = origin_of(operation.ref, operation.commit)
    made = next((r for r in record.releases if (r.name, r.commit) == (operation.release, operation.commit)), None)
    return SiteOperation(
        number=operation.number,
        phase=operation.phase,
        outcome=operation.outcome,
        release=one_line(operation.release),
        ref=ref,
        commit=commit,
        requested_by=one_line(operation.requested_by, _DETAIL),
        started=when(operation.started),
        finished=when(operation.finished),
        detail=one_line(operation.detail, _DETAIL),
        request=one_line(operation.request),
        rollout=one_line(operation.rollout),
        parts=release_of(made).parts if made is not None else (),
    )


def named_release(release: Release | None) -> SiteRelease | None:
    """Return a release of the site's records as a message names it; None for none."""
    return release_of(release) if release is not None else None


def release_of(release: Release) -> SiteRelease:
    """Return a release of the site's records as a message names it."""
    ref, commit = origin_of(release.ref, release.commit)
    parts = tuple(SitePart(repo=part.repo, ref=part.ref, commit=part.commit) for part in release.parts)
    try:
        return SiteRelease(release=release.name, ref=ref, commit=commit, parts=parts)
    except MessageError:  # a record that somebody has changed: its parts are not those of its commit
        return SiteRelease(release=release.name)


def origin_of(ref: str, commit: str) -> tuple[RefName | None, ObjectId | None]:
    """Return ref and commit of a record; None for what is no full name: somebody may have deployed from one."""
    with contextlib.suppress(InvalidName):
        found = parse_object_id(commit)
        with contextlib.suppress(InvalidName):
            return parse_ref_name(ref), found
        return None, found
    return None, None


def when(text: str) -> datetime | None:
    """Return the time of a record, aware; None where there is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
