"""Rollouts from the console: planned, begun or proposed, signed, controlled, retried, withdrawn.

Rules:

* What is carried out is planned anew, and refused where it is not what was shown.
* A refusal is in the audit before it leaves, and so is what was done.
* A rollout that people must sign begins when enough of them have, whoever of them is the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from deploykit.errors import ActionRefused, ConnectError, DeploykitError, PolicyRefused, RolloutBusy, UsageError
from deploykit.fleet.journal import is_rollout_id
from deploykit.fleet.mandates import time_objection
from deploykit.messages import one_line
from deploykit.messages.site import name_of
from deploykit.operations.approval import ApprovalDesk
from deploykit.operations.propose import mandate_for
from deploykit.settings.web import WebRole
from deploykit.web.actions.actionports import ActionPorts
from deploykit.web.actions.asked import ControlAsked, DeployAsked, RollbackAsked
from deploykit.web.actions.drafting import DraftedRollout
from deploykit.web.actions.hostport import ConsoleRollout
from deploykit.web.actions.kept import kept_detail
from deploykit.web.actions.plandigest import same_plan
from deploykit.web.actions.planning import RolloutPlanner
from deploykit.web.actions.ports import RolloutActions
from deploykit.web.actions.proposals import approve_command, mandate_of, missing_of, show_proposal, signing
from deploykit.web.actions.rights import require
from deploykit.web.actions.shown import ActionOutcome, PlanShown, ProposalShown
from deploykit.web.actions.standing import require_alone, rollout_elsewhere
from deploykit.web.pages.comparing import Comparisons
from deploykit.web.projection.rolloutviews import RolloutDetail
from deploykit.web.projection.views import PageRequested
from deploykit.web.viewer import Viewer

#: The role that each request to a rollout needs.
_ROLES: Final[dict[str, WebRole]] = {"pause": "stage", "abort": "stage", "resume": "live", "promote": "live"}

#: Proposals of one site that wait: nobody who may only propose hides those of others among theirs.
MOST_PROPOSALS: Final = 50


class ConsoleRollouts(RolloutActions):
    """See above.

    Args:
        ports: what it works with.
        comparisons: compares what is live with what would be.
    """

    def __init__(self, ports: ActionPorts, comparisons: Comparisons | None = None) -> None:
        self._ports = ports
        self._planner = RolloutPlanner(ports, comparisons)

    # -- plan and begin ------------------------------------------------------------------------------------------------

    def plan(self, viewer: Viewer, asked: DeployAsked | RollbackAsked) -> PlanShown:
        """See `RolloutActions`."""
        with self._ports.audit.judging(viewer, "plan", site=asked.site, unless=422):
            return self._planner.draft(viewer, asked).shown

    def begin(self, viewer: Viewer, asked: DeployAsked | RollbackAsked) -> ActionOutcome:
        """See `RolloutActions`."""
        action = "deploy" if isinstance(asked, DeployAsked) else "rollback"
        with self._ports.audit.judging(viewer, action, site=asked.site):
            return self._begin(viewer, self._planner.draft(viewer, asked), action, asked.plan, asked.reason)

    def plan_retry(self, viewer: Viewer, rollout: str, *, approval: bool = False) -> PlanShown:
        """See `RolloutActions`."""
        with self._ports.audit.judging(viewer, "plan", site=self._site_of(rollout), rollout=rollout, unless=422):
            return self._planner.draft_retry(viewer, rollout, approval=approval).shown

    def retry(
        self, viewer: Viewer, rollout: str, plan: str = "", *, approval: bool = False, reason: str = ""
    ) -> ActionOutcome:
        """See `RolloutActions`."""
        with self._ports.audit.judging(viewer, "retry", site=self._site_of(rollout), rollout=rollout):
            draft = self._planner.draft_retry(viewer, rollout, approval=approval)
            return self._begin(viewer, draft, "retry", plan, reason)

    def _begin(self, viewer: Viewer, draft: DraftedRollout, action: str, plan: str, reason: str) -> ActionOutcome:
        ports, planned = self._ports, draft.planned
        site = planned.plan.site
        require_alone(ports.kept, ports.queries, viewer, site, plan)
        if plan and not same_plan(plan, draft.shown.digest):
            problem = "it came out otherwise than the plan that you saw: nodes, releases or a lock have changed"
            raise ActionRefused(problem, "look at the plan as it is now", status=409, plan=problem)
        if draft.needs.signatures:
            return self._propose(viewer, draft, action, one_line(reason, 1000))
        require(viewer, site, "live", f"start a {planned.plan.kind}")
        if draft.lock is not None and not planned.override_lock:
            raise ActionRefused(
                f"{site} is {one_line(str(draft.lock), 400)}", "unlock it, or have it overridden", status=409
            )
        ports.kept.start(planned, viewer.name)
        rollout, detail = planned.plan.rollout, _described(draft, reason)
        ports.audit.done(viewer, action, f"started: {detail}", site=site, rollout=rollout)
        return ActionOutcome(state="started", rollout=rollout, site=site, detail=detail, notes=planned.notes)

    def _propose(self, viewer: Viewer, draft: DraftedRollout, action: str, reason: str) -> ActionOutcome:
        ports, planned, times = self._ports, draft.planned, draft.times
        if len(ports.kept.proposals(planned.plan.site)) >= MOST_PROPOSALS:
            raise ActionRefused(
                f"{MOST_PROPOSALS} rollouts of {planned.plan.site} wait for people", "withdraw some", status=409
            )
        try:
            mandate = mandate_for(
                planned, ports.now(), not_before=times.not_before, not_after=times.not_after, reason=reason
            )
        except UsageError as error:
            field = "not_after" if "mandate" in error.problem and "nodes," not in error.problem else "nodes"
            raise ActionRefused(error.problem, error.remedy, status=422, **{field: error.problem}) from error
        ports.kept.propose(planned, mandate, viewer.name)
        rollout, site = planned.plan.rollout, planned.plan.site
        detail = _described(draft, reason)
        ports.audit.done(viewer, action, f"proposed: {detail}", site=site, rollout=rollout, decision="asked")
        return ActionOutcome(
            state="proposed",
            rollout=rollout,
            site=site,
            detail=f"{detail}: it waits for {_people(draft.needs.signatures)} to sign",
            notes=(f"from a shell: {approve_command(rollout, ports.settings.web.url)}", *planned.notes),
        )

    # -- what runs -----------------------------------------------------------------------------------------------------

    def control(self, viewer: Viewer, rollout: str, asked: ControlAsked) -> ActionOutcome:
        """See `RolloutActions`. A proposal that enough people have signed is started by `promote`."""
        ports = self._ports
        what = f"{asked.kind} and roll back" if asked.rollback else asked.kind
        with ports.audit.judging(viewer, asked.kind, site=self._site_of(rollout), rollout=rollout):
            kept = self._found(viewer, rollout, f"deploykit rollout {asked.kind} {rollout[:200]}")
            site = kept.head.plan.site
            role = "live" if asked.rollback else _ROLES[asked.kind]
            require(viewer, site, role, f"{what} a rollout")
            if asked.rollback and asked.kind != "abort":
                problem = "only an abort takes back what was activated"
                raise ActionRefused(problem, "leave it out", status=422, rollback=problem)
            if asked.rollback and kept.head.plan.kind == "rollback":
                problem = "a rollback is not taken back"
                raise ActionRefused(problem, "abort it alone", status=422, rollback=problem)
            if kept.state == "proposed":
                return self._start_proposed(viewer, kept, asked.kind)
            if kept.state != "running":
                raise ActionRefused(f"rollout {rollout} has ended", "there is nothing to do", status=409)
            self._asked(kept, asked, viewer)
        ports.audit.done(viewer, asked.kind, f"asked to {what}", site=site, rollout=rollout, decision="asked")
        return ActionOutcome(state="asked", rollout=rollout, site=site, detail=f"asked to {what}")

    def _asked(self, kept: ConsoleRollout, asked: ControlAsked, viewer: Viewer) -> None:
        mandate = kept.head.mandate
        over = time_objection(mandate.message, self._ports.now()) if mandate is not None else ""
        if over and (asked.kind != "abort" or asked.rollback):
            raise ActionRefused(f"{over}: no node goes on under it, or back", "abort it, and propose anew", status=409)
        try:
            self._ports.kept.control(kept.rollout, asked.kind, viewer.name, rollback=asked.rollback)
        except UsageError as error:  # it has ended meanwhile
            raise ActionRefused(error.problem, error.remedy, status=409) from error

    def _start_proposed(self, viewer: Viewer, kept: ConsoleRollout, kind: str) -> ActionOutcome:
        if kind != "promote":
            raise ActionRefused(f"rollout {kept.rollout} has not begun", "withdraw it, or have it signed", status=409)
        outcome = self._start_if_approved(viewer, kept)
        if outcome is None:
            raise ActionRefused(f"rollout {kept.rollout} waits for signatures", "see its page", status=409)
        if outcome.state != "started":
            raise ActionRefused(outcome.detail, *outcome.notes[:1], status=409)
        return outcome

    def _site_of(self, rollout: str) -> str:
        """Return the site of a rollout of this console, for the audit; empty where that cannot be said."""
        try:
            kept = self._ports.kept.find(rollout) if is_rollout_id(rollout) else None
        except DeploykitError:
            return ""  # the action itself meets this, too, and is refused for it
        return kept.head.plan.site if kept is not None else ""

    def _found(self, viewer: Viewer, rollout: str, command: str) -> ConsoleRollout:
        """Return a rollout of this console that somebody may see.

        Raises:
            ActionRefused: 404, or 409 where it is of another machine.
        """
        kept = self._ports.kept.find(rollout) if is_rollout_id(rollout) else None
        if kept is None or not viewer.sees(kept.head.plan.site):
            raise rollout_elsewhere(self._ports.queries, viewer, rollout, command)
        return kept

    def begun(self, viewer: Viewer, rollout: str, page: PageRequested) -> RolloutDetail | None:
        """See `RolloutActions`."""
        with self._ports.audit.judging(viewer, "look", site=self._site_of(rollout), rollout=rollout, unless=503):
            kept = self._ports.kept.find(rollout) if is_rollout_id(rollout) else None
            if kept is None or kept.state not in ("running", "ended") or not viewer.sees(kept.head.plan.site):
                return None
            return kept_detail(self._ports.kept.contents(rollout), kept.requested_by, page)

    # -- what waits for people -----------------------------------------------------------------------------------------

    def proposal(self, viewer: Viewer, rollout: str) -> ProposalShown | None:
        """See `RolloutActions`."""
        with self._ports.audit.judging(viewer, "look", site=self._site_of(rollout), rollout=rollout, unless=503):
            kept = self._ports.kept.find(rollout) if is_rollout_id(rollout) else None
            if kept is None or kept.state != "proposed" or not viewer.sees(kept.head.plan.site):
                return None
            return show_proposal(kept, self._desk(kept), self._ports.now(), self._ports.settings.web.url)

    def proposals(self, viewer: Viewer, site: str = "") -> Sequence[ProposalShown]:
        """See `RolloutActions`."""
        if site and not viewer.sees(site):
            return ()
        with self._ports.audit.judging(viewer, "look", site=site, unless=503):
            waiting = self._ports.kept.proposals(site)
            desk, now = ApprovalDesk.from_settings(self._ports.settings), self._ports.now()
            url = self._ports.settings.web.url
            return tuple(
                show_proposal(each, desk.asking(each.head.asks), now, url)
                for each in waiting
                if viewer.sees(each.head.plan.site)
            )

    def sign(self, viewer: Viewer, rollout: str, signature: str) -> ActionOutcome:
        """See `RolloutActions`."""
        ports = self._ports
        with ports.audit.judging(viewer, "approve", site=self._site_of(rollout), rollout=rollout):
            kept = self._proposed(viewer, rollout, "sign")
            desk = self._desk(kept)
            if not desk.knows_signers:
                raise ActionRefused("this console knows nobody who may sign", "set trust.allowed_signers", status=503)
            signed = ports.kept.change_mandate(rollout, signing(signature, desk, ports.now()))
        site = kept.head.plan.site
        ports.audit.done(viewer, "approve", _signers(signed, desk, ports.now()), site=site, rollout=rollout)
        try:
            with ports.audit.judging(viewer, "deploy", site=site, rollout=rollout):
                started = self._start_if_approved(viewer, signed)
        except ActionRefused as error:  # the signature is kept, and the host tries again
            return ActionOutcome(
                state="proposed",
                rollout=rollout,
                site=site,
                detail=f"signed, and it does not begin now: {error.problem}",
                notes=(f"see the page of rollout {rollout}",),
            )
        if started is not None:
            return started
        missing = missing_of(desk.sheet(mandate_of(signed), ports.now()), desk, ports.now())
        return ActionOutcome(state="proposed", rollout=rollout, site=site, detail=f"signed; {missing}")

    def withdraw(self, viewer: Viewer, rollout: str) -> ActionOutcome:
        """See `RolloutActions`."""
        ports = self._ports
        with ports.audit.judging(viewer, "withdraw", site=self._site_of(rollout), rollout=rollout):
            site = self._proposed(viewer, rollout, "withdraw").head.plan.site
            try:
                ports.kept.withdraw(rollout)
            except UsageError as error:
                raise ActionRefused(error.problem, error.remedy, status=409) from error
        ports.audit.done(viewer, "withdraw", "the proposal is withdrawn", site=site, rollout=rollout)
        return ActionOutcome(state="done", rollout=rollout, site=site, detail="withdrawn; nothing was sent")

    def _proposed(self, viewer: Viewer, rollout: str, what: str) -> ConsoleRollout:
        kept = self._found(viewer, rollout, f"deploykit rollout show {rollout[:200]}")
        require(viewer, kept.head.plan.site, "stage", f"{what} a rollout")
        if kept.state != "proposed":
            how = {"withdrawn": "was withdrawn", "ended": "has ended"}.get(kept.state, "has begun")
            raise ActionRefused(f"rollout {rollout} {how}", "see its page", status=409)
        return kept

    def _start_if_approved(self, viewer: Viewer, kept: ConsoleRollout) -> ActionOutcome | None:
        """Start a proposal that enough people have signed; None where too few have.

        The signatures are kept whatever happens here: a site that is busy, or a mandate that begins later, waits.
        """
        ports, site, rollout = self._ports, kept.head.plan.site, kept.rollout
        held, desk, now = mandate_of(kept), self._desk(kept), ports.now()
        if missing_of(desk.sheet(held, now), desk, now):
            return None
        if now < held.message.not_before:
            begins = f"{held.message.not_before:%Y-%m-%d %H:%M} UTC"
            return ActionOutcome(
                state="proposed", rollout=rollout, site=site, detail=f"enough people have signed; it begins at {begins}"
            )
        try:
            ports.kept.start_approved(rollout)
        except (RolloutBusy, PolicyRefused, ConnectError) as error:
            detail = f"enough people have signed, and it waits: {error.problem}"
            return ActionOutcome(state="proposed", rollout=rollout, site=site, detail=detail, notes=(error.remedy,))
        except UsageError as error:
            again = ports.kept.find(rollout)  # the host looks after proposals, too
            if again is None or again.state != "running":
                raise ActionRefused(error.problem, error.remedy, status=409) from error
        ports.audit.done(viewer, "deploy", "started: enough people have signed", site=site, rollout=rollout)
        return ActionOutcome(
            state="started", rollout=rollout, site=site, detail="enough people have signed: it has begun"
        )

    def _desk(self, kept: ConsoleRollout) -> ApprovalDesk:
        """Return what judges a proposal: by this console's settings, and by those of the one where it was proposed."""
        return ApprovalDesk.from_settings(self._ports.settings).asking(kept.head.asks)


def _described(draft: DraftedRollout, reason: str) -> str:
    plan, shown = draft.planned.plan, draft.shown
    count = "1 node" if len(plan.nodes) == 1 else f"{len(plan.nodes)} nodes"
    what = name_of(plan.releases[0]) if shown.ref else "each to its own release"
    why = f" ({one_line(reason)})" if reason.strip() else ""
    return f"{plan.kind} of {what} on {count}{why}"


def _signers(kept: ConsoleRollout, desk: ApprovalDesk, now: datetime) -> str:
    sheet = desk.sheet(mandate_of(kept), now)
    return f"signed; now by {', '.join(each.fingerprint for each in sheet.signatures)}"


def _people(count: int) -> str:
    return "1 person" if count == 1 else f"{count} people"


__all__ = ["MOST_PROPOSALS", "ConsoleRollouts"]
