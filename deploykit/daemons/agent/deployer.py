"""Carries out an authorized deploy command: the site's runner, with the mirror where the site needs one.

Rules:

* Exactly the command's ref and commit, or parts, are deployed, whatever the refs name by now.
* The build gate is asked first. What it refuses, touches nothing.
* Whether a command's rollout was aborted is asked again under the site's lock: it may have waited there.
* The site decides whether it needs the mirror. A rollback or an activation is tried without one first.
* `deploy` always returns a result, whatever fails here: the asker gets one final report.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import TypedDict

import attrs

from deploykit.daemons.agent.commandsources import CommandSources, other_repositories
from deploykit.daemons.agent.gate import BuildGate
from deploykit.daemons.agent.mirrors import MirrorHandler
from deploykit.daemons.agent.progress import ProgressSender
from deploykit.daemons.agent.sitestates import release_of
from deploykit.errors import DeploykitError, LfsMissing, PolicyRefused
from deploykit.messages import DeployOutcome, DeployRequested, one_line
from deploykit.release import DeployResult, PartRequest, Runner, Site, TreeSource
from deploykit.settings.node import Settings
from deploykit.trust.signature import Signers

_log = logging.getLogger(__name__)


class _Origin(TypedDict):
    """Where an operation comes from, for the site's records."""

    request: str
    requested_by: str
    rollout: str


class SiteDeployer:
    """Deploys to the sites of one node.

    Args:
        settings: the sites.
        mirrors: where the trees come from.
        gate: asked before a command is carried out.
        progress: where each step is sent as it begins and ends.
    """

    def __init__(self, settings: Settings, mirrors: MirrorHandler, gate: BuildGate, progress: ProgressSender) -> None:
        self._settings = settings
        self._mirrors = mirrors
        self._gate = gate
        self._progress = progress

    def deploy(
        self, request: DeployRequested, signer: Signers, objection: Callable[[Site], str], *, resumed: bool = False
    ) -> DeployResult:
        """Carry out a command and return its result.

        Args:
            request: the command.
            signer: who signed it.
            objection: returns why the command may not begin now, or an empty string.
            resumed: this very command was claimed before.
        """
        site = self._settings.sites.get(request.site)
        if site is None:
            return DeployResult(outcome="refused", detail=f"this node has no site {request.site}")
        if why := other_repositories(request, site):
            return DeployResult(outcome="refused", detail=why)
        named = one_line(request.requested_by)
        requested_by = f"{named}, signed {signer}" if named else str(signer)
        runner: Runner | None = None
        sources: CommandSources | None = None
        result: DeployResult | None = None
        try:
            progress = self._progress.command(request)
            place = Site(site.path, site.release)
            runner = Runner(
                place,
                node=self._settings.node,
                on_output=progress.on_output,
                on_step=progress.on_step,
                may_begin=partial(_check, objection, place),
            )
            if note := self._gate.ask(request, runner.site, resumed=resumed).note:
                requested_by = f"{requested_by}, {note}"
            with progress, contextlib.ExitStack() as stack:
                sources = CommandSources(self._settings, self._mirrors, request, progress, stack)
                result = self._run(sources, runner, request, requested_by)
            if note:
                result = attrs.evolve(result, detail="; ".join(filter(None, (note, result.detail))))
        except Exception as error:  # noqa: BLE001 -- the asker gets one final report, whatever went wrong here
            if result is None:
                result = _failed(error, request)
                with contextlib.suppress(Exception):  # what is live is reported where it can be read
                    result = runner.with_site_state(result) if runner is not None else result
            else:  # the deploy has its result; this failed after it
                _log.exception("after the deploy of %s", request.site)
        for repo in sources.damaged(result.error) if sources is not None else ():
            self._mirrors.reclone(repo)
        return result

    def _run(
        self, sources: CommandSources, runner: Runner, request: DeployRequested, requested_by: str
    ) -> DeployResult:
        """Run the command's phase. What the site refuses without a mirror, untouched, is tried again with one.

        Args:
            sources: opens mirrors.
            runner: of the site.
            request: the command.
            requested_by: for the site's records.
        """
        ref, commit, phase = request.ref or "", request.commit, request.phase
        more = _Origin(request=request.id, requested_by=requested_by, rollout=request.rollout or "")
        if request.parts and phase in ("activate", "rollback", "discard"):
            _check_parts(request, runner.site)
        if phase == "discard":
            return runner.discard(ref, commit, **more)
        if phase in ("activate", "rollback"):
            put_live = runner.activate if phase == "activate" else runner.rollback
            result = put_live(commit, ref=ref, **more)
            if result.outcome != "refused" or isinstance(result.error, PolicyRefused):
                return result
            return _with_objects(sources, lambda source: put_live(commit, ref=ref, source=source, **more))
        make = runner.deploy if phase == "deploy" else runner.prepare
        parts = {part.repo: PartRequest(ref=part.ref, commit=part.commit) for part in request.parts}
        return _with_objects(sources, lambda source: make(source, ref, commit, parts=parts, **more))


def _with_objects(sources: CommandSources, act: Callable[[TreeSource], DeployResult]) -> DeployResult:
    """Act; where objects of Git LFS are missing, fetch once and try again. Until then nothing is touched."""
    source = sources.source()
    result = act(source)
    if result.outcome != "refused" or not isinstance(result.error, LfsMissing):
        return result
    sources.fetch_objects(result.error)
    return act(source)


def _check_parts(request: DeployRequested, site: Site) -> None:
    """Refuse a command whose id stands for other parts in the site's records: an id alone is no proof.

    Raises:
        PolicyRefused: they differ.
    """
    for release in site.recorded().releases:
        if release.commit == request.commit and release_of(release).parts != request.parts:
            raise PolicyRefused(f"release {release.name} has the id of the command's parts, and is made of others")


def _check(objection: Callable[[Site], str], site: Site) -> None:
    if why := objection(site):
        raise PolicyRefused(why)


def _failed(error: Exception, request: DeployRequested) -> DeployResult:
    """Return what an error from a deploy, or on the way to it, means for the asker."""
    if isinstance(error, DeploykitError):
        outcome: DeployOutcome = "refused" if error.exit_code == 3 else "failure"
        return DeployResult(outcome=outcome, detail=str(error), error=error)
    _log.error("deploy of %s failed: this is a bug, or a broken disk", request.site, exc_info=error)
    return DeployResult(outcome="failure", detail=f"{type(error).__name__}; see the log of the agent")
