"""The agent's build gate: a commit goes live where the builds that its site requires succeeded.

    evidence -> judge -> store
    request  -> passed here before? -> stored results, judged anew -> builds.gate.decide -> go on, or refuse

Rules:

* It is asked before anything is touched: by `deploy`, `prepare` and `activate`. A `discard` puts nothing live.
* Going back needs no build: neither a rollback, nor a commit that was live and good on this site. A rollback to what
  was only prepared is no way back, and needs one.
* A command that this site has begun is not asked again when it is resumed: a crash in between must not turn it into a
  refusal. Another command under its id is asked.
* A command without a build is authorized by `trust.policy`. Here it is only noted, for the report and the records.
* Of a site of several repositories each commit needs its builds, or was live and good here before.
* What cannot be read leaves the gate closed. Refusals are seen by others: they quote neither paths nor principals.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Final, Literal

import attrs

from deploykit.builds import BuildStore, GateDecision, KnownResult, SignedResult, decide, judge, judge_to_keep
from deploykit.builds.store import builds_of
from deploykit.daemons.agent.result_audit import ResultAudit
from deploykit.daemons.service.metrics import Metrics
from deploykit.errors import AuditError, BuildStoreError, DeploykitError, KeyFileError, MessageError, PolicyRefused
from deploykit.messages import MAX_EVIDENCE, DeployRequested, utc_now
from deploykit.names import ObjectId, RepoName
from deploykit.release import Site
from deploykit.settings.node import Settings
from deploykit.settings.site import NodeSiteSettings
from deploykit.trust.check import Trust

_log = logging.getLogger(__name__)

#: What the report and the site's records say of a deploy that needed no build.
WITHOUT_BUILD: Final = "without a build (--without-build)"
_REMEDY: Final = "run the build, or send its result with --evidence"

GateOutcome = Literal["open", "not-needed", "without-build"]


@attrs.frozen(slots=True)
class GatePassage:
    """A command that may go on, and why.

    Args:
        outcome: the builds succeeded; none is needed; or none was asked for.
        note: what its report must say about the gate; empty where there is nothing to say.
    """

    outcome: GateOutcome
    note: str = ""


_WITHOUT: Final = GatePassage("without-build", WITHOUT_BUILD)


class BuildGate:
    """The gates of one node's sites.

    Args:
        settings: what each site requires.
        trust: judges results, at each decision anew.
        store: the results that are known.
        audit: where it is recorded which results count.
        metrics: counts the decisions of sites that require builds.
        now: the wall clock, aware UTC.
    """

    def __init__(
        self,
        settings: Settings,
        trust: Trust,
        store: BuildStore,
        audit: ResultAudit,
        *,
        metrics: Metrics | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._remember = timedelta(seconds=settings.builds.remember)
        self._sites = settings.sites
        self._trust = trust
        self._store = store
        self._audit = audit
        self._metrics = metrics or Metrics()
        self._now = now

    def ask(self, request: DeployRequested, site: Site, *, resumed: bool = False) -> GatePassage:
        """Let a command pass, or refuse it.

        Args:
            request: genuine and authorized.
            site: where it would act.
            resumed: this very command was claimed before.

        Raises:
            PolicyRefused: a required build is not known to have succeeded; nothing was touched.
        """
        settings = self._sites[request.site]
        if len(request.evidence) > MAX_EVIDENCE:
            raise PolicyRefused(f"the command carries more than {MAX_EVIDENCE} build results", "send fewer")
        if not settings.gated or request.phase == "discard":
            return GatePassage("not-needed")
        try:
            passage = self._ask(request, site, settings, resumed=resumed)
        except PolicyRefused as error:
            self._metrics.gate_decided(request.site, "closed")
            _log.warning("gate of %s: closed: %s", request.site, error)
            raise
        self._metrics.gate_decided(request.site, passage.outcome)
        _log.info("gate of %s: %s for %s", request.site, passage.outcome, request.summary)
        return passage

    def _ask(self, request: DeployRequested, site: Site, settings: NodeSiteSettings, *, resumed: bool) -> GatePassage:
        if request.phase == "rollback" and not only_prepared(request, site):
            return GatePassage("not-needed")
        if resumed and _begun(request, site):
            return _WITHOUT if request.without_build else GatePassage("open")
        sources = _sources(request, settings)
        decisions, doubts = self._decide(request, sources, settings)
        if decisions is not None and all(decision.open for decision in decisions.values()):
            return GatePassage("open")
        closed = [
            source
            for source in sources
            if (decisions is None or not decisions[source].open) and not _was_good(source, settings, site)
        ]
        if not closed:
            return GatePassage("not-needed")
        if request.without_build:
            return _WITHOUT
        if decisions is None:
            raise PolicyRefused(
                "whether a build succeeded cannot be read on this node now", "see the log of its agent, and ask again"
            )
        refusals = (f"{source.label}{line}" for source in closed for line in decisions[source].refusals)
        raise PolicyRefused("; ".join((*refusals, *doubts)), _REMEDY)

    def _decide(
        self, request: DeployRequested, sources: Sequence[_Source], settings: NodeSiteSettings
    ) -> tuple[dict[_Source, GateDecision] | None, list[str]]:
        """Return the decisions and what is wrong with the evidence; no decisions where results cannot be read."""
        now = self._now()
        try:
            carried, doubts = self._carried(request, now)
            known = [*carried.values(), *self._stored(request, sources, settings, now, without=carried)]
        except (BuildStoreError, KeyFileError) as error:
            _log.error("gate of %s: %s", request.site, error)
            return None, []
        made = {each: decide(settings.jobs_of(each.repo), each.repo, each.commit, known, now) for each in sources}
        return made, doubts

    def _carried(self, request: DeployRequested, now: datetime) -> tuple[dict[bytes, KnownResult], list[str]]:
        """Return the results that a command carries, kept where they are good, and a line for each that is none."""
        found, doubts = dict[bytes, KnownResult](), list[str]()
        for at, evidence in enumerate(request.evidence, 1):
            try:
                signed = SignedResult.from_evidence(evidence)
                known = judge_to_keep(signed, self._trust, now, remember=self._remember)
                if known.objection:
                    self._audit.refused(f"evidence of {request.summary}: {known.objection}")
                else:
                    self._keep(signed, known, now)
                    known = judge(signed, self._trust, now, remember=self._remember, site=request.site)
            except MessageError:
                doubts.append(f"evidence {at} is no build result")
            else:
                found[signed.digest] = _better(known, found.get(signed.digest))
        return found, doubts

    def _keep(self, signed: SignedResult, known: KnownResult, now: datetime) -> None:
        try:
            self._audit.counts(signed, known)
            self._store.put(signed, known.result, known.signer, now)
        except (AuditError, BuildStoreError) as error:  # it counts all the same, this time
            _log.warning("evidence is not kept: %s", error)

    def _stored(
        self,
        request: DeployRequested,
        sources: Sequence[_Source],
        settings: NodeSiteSettings,
        now: datetime,
        *,
        without: dict[bytes, KnownResult],
    ) -> list[KnownResult]:
        """Return the stored results of the commits, each judged anew from its bytes."""
        found = []
        skew = self._trust.policy.skew
        since, until = now - self._remember - skew, now + skew
        stored = (
            self._store.of(each.repo, each.commit, settings.jobs_of(each.repo), since=since, until=until)
            for each in sources
        )
        for signed in chain.from_iterable(stored):
            carried = without.get(signed.digest)
            if carried is not None and not carried.objection:
                continue
            try:
                found.append(judge(signed, self._trust, now, remember=self._remember, site=request.site, again=True))
            except MessageError as error:
                _log.error("a stored build result is damaged: %s", error)
        return found


@attrs.frozen(slots=True)
class _Source:
    """A commit of one repository that a command would put live; the label says which, where there are several."""

    repo: RepoName
    commit: ObjectId
    label: str = ""


def _sources(request: DeployRequested, settings: NodeSiteSettings) -> tuple[_Source, ...]:
    """Return what a command would put live.

    Raises:
        PolicyRefused: it is one commit, and the site does not say of which repository.
    """
    if request.parts:
        return tuple(_Source(part.repo, part.commit, f"{part.repo}: ") for part in request.parts)
    if settings.repo is None:
        raise PolicyRefused(f"site {request.site} is made of several repositories, and the command names one commit")
    return (_Source(settings.repo, request.commit),)


def _better(new: KnownResult, old: KnownResult | None) -> KnownResult:
    """Return the one that counts, of two copies of a result: a bad copy must not hide a good one."""
    return new if old is None or old.objection else old


def gate_problems(settings: Settings) -> tuple[str, ...]:
    """Return why this node's gates cannot open, if the store of results cannot be read."""
    if not any(site.gated for site in settings.sites.values()):
        return ()
    try:
        builds_of(settings.state).count()
    except BuildStoreError as error:
        return (f"no gate that requires a build opens: {error}",)
    return ()


def _begun(request: DeployRequested, site: Site) -> bool:
    """Return whether this site has begun this very command: then it passed the gate."""
    try:
        operation = site.recorded().answered(request.id)
    except DeploykitError:
        return False
    return operation is not None and (operation.phase, operation.ref, operation.commit) == (
        request.phase,
        request.ref,
        request.commit,
    )


def _was_good(source: _Source, settings: NodeSiteSettings, site: Site) -> bool:
    """Return whether the commit was live on this site and all steps passed, and was not taken back."""
    try:
        releases = site.recorded().releases
    except DeploykitError:
        return False
    good = (release for release in releases if release.status == "good" and release.activated)
    if settings.repo is not None:
        return any(release.commit == source.commit and not release.parts for release in good)
    here = (source.repo, source.commit)
    return any((part.repo, part.commit) == here for release in good for part in release.parts)


def only_prepared(request: DeployRequested, site: Site) -> bool:
    """Return whether a rollback would put live what was prepared here and never live: that is an activation."""
    try:
        of_commit = [r for r in site.recorded().releases if r.commit == request.commit]
    except DeploykitError:
        return False
    was_live = any(r.status in ("good", "withdrawn") and r.activated for r in of_commit)
    return not was_live and any(r.status == "prepared" for r in of_commit)
