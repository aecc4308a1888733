"""Carries out an authorized deploy command: the site's runner, with the mirror where the site needs one.

Rules:

* Exactly the command's ref and commit are deployed, whatever the ref names by now.
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
from typing import Final, TypedDict

import attrs

from deploykit.daemons.agent.gate import BuildGate
from deploykit.daemons.agent.mirrors import MirrorHandler
from deploykit.daemons.agent.progress import CommandProgress, ProgressSender
from deploykit.errors import DeploykitError, MirrorError, PolicyRefused
from deploykit.messages import DeployOutcome, DeployRequested, one_line
from deploykit.mirror import Mirror
from deploykit.names import RepoName
from deploykit.release import DeployResult, Runner, Site
from deploykit.settings.node import Settings
from deploykit.trust.signature import Signers

_log = logging.getLogger(__name__)

#: The step of a command's progress in which its commit is fetched. It is the mirror's: no release has it among its own.
FETCH: Final = "fetch"


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
        named = one_line(request.requested_by)
        requested_by = f"{named}, signed {signer}" if named else str(signer)
        runner: Runner | None = None
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
                result = self._run(stack, runner, site.repo, request, requested_by, progress)
            if note:
                result = attrs.evolve(result, detail="; ".join(filter(None, (note, result.detail))))
        except Exception as error:  # noqa: BLE001 -- the asker gets one final report, whatever went wrong here
            if result is None:
                result = _failed(error, request)
                with contextlib.suppress(Exception):  # what is live is reported where it can be read
                    result = runner.with_site_state(result) if runner is not None else result
            else:  # the deploy has its result; this failed after it
                _log.exception("after the deploy of %s", request.site)
        self._mirrors.reclone_if_damaged(site.repo, result.error)
        return result

    def _run(
        self,
        stack: contextlib.ExitStack,
        runner: Runner,
        repo: RepoName,
        request: DeployRequested,
        requested_by: str,
        progress: CommandProgress,
    ) -> DeployResult:
        """Run the command's phase. What the site refuses without a mirror, untouched, is tried again with one.

        Args:
            stack: closes the mirror.
            runner: of the site.
            repo: the site's repository.
            request: the command.
            requested_by: for the site's records.
            progress: of the command.
        """
        ref, commit, phase = request.ref, request.commit, request.phase
        more = _Origin(request=request.id, requested_by=requested_by, rollout=request.rollout or "")
        if phase == "discard":
            return runner.discard(ref, commit, **more)
        if phase in ("activate", "rollback"):
            put_live = runner.activate if phase == "activate" else runner.rollback
            result = put_live(commit, ref=ref, **more)
            if result.outcome != "refused" or isinstance(result.error, PolicyRefused):
                return result
        mirror = stack.enter_context(self._mirrors.mirror(repo))
        self._make_current(mirror, repo, request, progress)
        if phase in ("activate", "rollback"):
            return put_live(commit, ref=ref, source=mirror, **more)
        make = runner.deploy if phase == "deploy" else runner.prepare
        return make(mirror, ref, commit, **more)

    def _make_current(
        self, mirror: Mirror, repo: RepoName, request: DeployRequested, progress: CommandProgress
    ) -> None:
        """Fetch unless the mirror holds the requested commit under its ref."""
        try:
            if mirror.resolve(request.ref).commit == request.commit:
                return
        except MirrorError:
            _log.info("[%s] does not hold %s yet: fetching", repo, request.ref)
        with progress.step(FETCH) as fetching:
            fetching.done = self._mirrors.sync(
                repo, ref=request.ref, commit=request.commit, correlation_id=request.correlation_id
            )


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
