"""Discard what was prepared and never went live: the way back of a deploy that stops before its switch.

Rules:

* Only releases of exactly the named ref and commit go, which were never live, are not live now, and are not pinned.
* What is live, or was good, is refused and stays. Where nothing waits, that is a success.
* One write of the records is the whole act. A crash before it changes nothing. After it, directories that are left are
  removed by the next operation.
* Nothing of the site runs: no script, no health check.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime

import attrs

from deploykit.errors import PreflightRefused
from deploykit.release import answers
from deploykit.release.finish import Finisher
from deploykit.release.model import DeployResult, Operation, Release, ReleaseVersion, StepRecord, refused
from deploykit.release.requests import ReleaseRequest
from deploykit.release.site import Site
from deploykit.release.state import SiteRecord, save_steps
from deploykit.release.steps import Listeners, timestamp

_log = logging.getLogger(__name__)


def discard_prepared(
    site: Site,
    finisher: Finisher,
    listeners: Listeners,
    request: ReleaseRequest,
    *,
    node: str,
    now: Callable[[], datetime],
) -> DeployResult:
    """Remove the prepared releases that a request names; the site's lock is held, and no operation is cut off.

    Args:
        site: where.
        finisher: removes the directories.
        listeners: are called when the one step begins and ends.
        request: its ref and its whole commit name the releases.
        node: this machine's name, for the record.
        now: the wall clock.
    """
    state = site.state()
    finisher.sweep(state)  # what a crash left of an earlier one
    answer = answers.recorded_answer(site, state, "discard", request)
    if answer is not None:
        return answer
    waiting, why_not = _waiting(state, site.live_name(), request.ref, request.name)
    if why_not is not None:
        return refused(why_not)
    version = waiting[-1].version if waiting else ReleaseVersion(ref=request.ref, commit=request.name)
    named = f"{version.tag} at {version.commit[:12]}"
    if not waiting:
        return DeployResult(outcome="success", detail=f"nothing of {named} is prepared: there is nothing to discard")
    started, begun = timestamp(now()), time.monotonic()
    listeners.emit("discard", None)
    detail = f"removed {', '.join(r.name for r in waiting)}, prepared and never live"
    step = StepRecord(name="discard", outcome="done", output=detail)
    done = Operation(
        number=state.next_operation,
        phase="discard",
        release=waiting[-1].name,
        ref=request.ref,
        commit=request.name,
        request=request.request_id,
        requested_by=request.requested_by,
        node=node,
        started=started,
        finished=timestamp(now()),
        outcome="success",
        detail=detail,
        rollout=request.rollout,
    )
    for release in waiting:
        state = state.with_release(attrs.evolve(release, status="discarded", present=False, spare=False))
    state = state.with_operation(done)
    save_steps(site.history_file(done.number), done, (step,), durable=site.settings.durable)
    site.save(state)
    finisher.sweep(state)
    step = attrs.evolve(step, seconds=round(time.monotonic() - begun, 3))
    listeners.emit("discard", step)
    _log.info("discard of %s: %s", named, detail)
    return DeployResult(outcome="success", release=done.release, steps=(step,), detail=detail)


def _waiting(
    state: SiteRecord, live: str, ref: str, commit: str
) -> tuple[tuple[Release, ...], PreflightRefused | None]:
    """Return the releases that wait to be activated, oldest first, and why none may go, if so. Pure."""
    known = state.of(ref, commit)
    waiting = tuple(r for r in known if r.status == "prepared" and not r.activated and r.name != live)
    for release in waiting:
        if release.pinned:
            return (), PreflightRefused(f"{release.name} is pinned", "take the pin off first: `release pin --remove`")
    if waiting or not known:
        return waiting, None
    newest = known[-1]
    if newest.name == live:
        return (), PreflightRefused(f"{newest.name} is live: it is not discarded", "roll back to leave it")
    if newest.status in ("good", "withdrawn"):
        return (), PreflightRefused(f"{newest.name} was live: it is not discarded", "old releases are pruned")
    return (), None
