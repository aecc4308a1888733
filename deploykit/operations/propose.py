"""Have a rollout approved before it begins: write the proposal, and start what enough people have signed.

Rules:

* A mandate is for one rollout id. A retry is another rollout, and needs another mandate.
* Where the settings of this machine know what a site asks for, nothing is sent that its nodes would refuse.
* Only signatures that count here go out: nodes believe a mandate only where all its signatures are good.
"""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import MessageError, PolicyRefused, UsageError
from deploykit.fleet.journalhead import JournalHead
from deploykit.fleet.mandates import HeldMandate, approval_of, require_inside, time_objection
from deploykit.fleet.plan import Plan
from deploykit.fleet.view import duration
from deploykit.messages import BuildEvidence, utc_now
from deploykit.operations.approval import ApprovalDesk
from deploykit.operations.builds import evidence_for
from deploykit.operations.deploy import load_report_trust, signing_key
from deploykit.operations.keychoice import KeyGiven
from deploykit.operations.mandatefiles import require_canonical
from deploykit.operations.proposals import Proposal, prune_proposals, read_proposal, store_proposal
from deploykit.operations.rolloutplan import PlannedRollout
from deploykit.operations.siteasks import asked_here, strictest
from deploykit.operations.siteparts import sources_of
from deploykit.settings.node import Settings
from deploykit.wire import encode

#: Most nodes that one mandate can name.
MOST_NODES: Final = 10_000


def mandate_for(
    planned: PlannedRollout,
    now: datetime,
    *,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    reason: str = "",
) -> HeldMandate:
    """Return the mandate that a planned rollout needs, without a signature.

    Args:
        planned: from `plan_deploy` and its siblings.
        now: aware.
        not_before: when it may begin; at once when None.
        not_after: when it must be over; as late as nodes accept when None (`trust.mandate_max`).
        reason: why, in words for a person.

    Raises:
        UsageError: it would be over before it begins, reach further than nodes accept, or name too many nodes, or too
            long ones for one message.
    """
    plan, longest = planned.plan, timedelta(seconds=planned.settings.trust.mandate_max)
    begins = not_before or now
    ends = not_after or begins + longest
    if len(plan.nodes) > MOST_NODES:
        raise UsageError(
            f"a mandate names at most {MOST_NODES} nodes, not {len(plan.nodes)}", "propose several rollouts"
        )
    if ends <= max(begins, now):
        raise UsageError("the mandate would be over before it begins", "give a later --not-after")
    if ends - begins > longest:
        raise UsageError(
            f"nodes accept a mandate for {duration(longest.total_seconds())}: it must end by "
            f"{(begins + longest).astimezone(UTC):%Y-%m-%dT%H:%MZ}",
            "give an earlier --not-after; trust.mandate_max says how long",
        )
    message = approval_of(
        plan,
        now=now,
        not_before=begins,
        not_after=ends,
        source=f"operator/{socket.gethostname()}",
        without_build=planned.without_build,
        override_lock=planned.override_lock,
        reason=reason,
    )
    try:
        held = HeldMandate.of_frame(encode(message))
    except MessageError as error:
        raise UsageError(f"this cannot be one mandate: {error.problem}", "propose several rollouts") from error
    require_canonical(held)
    return held


def propose(planned: PlannedRollout, mandate: HeldMandate) -> Proposal:
    """Write the proposal of a rollout, durably; nothing is sent. Old proposals are removed.

    Args:
        planned: what the rollout would do.
        mandate: from `mandate_for`.

    Raises:
        RolloutError: it cannot be written.
    """
    now = utc_now()
    directory = planned.settings.rollouts_directory
    prune_proposals(directory, now)
    head = JournalHead(
        plan=planned.plan,
        begun=now.timestamp(),
        evidence=planned.evidence,
        without_build=planned.without_build,
        override_lock=planned.override_lock,
        mandate=mandate,
        asks=strictest((asked_here(planned.settings, planned.plan.site), planned.asks)),
    )
    return store_proposal(directory, head)


def plan_approved(settings: Settings, path: Path, *, key: KeyGiven = None) -> PlannedRollout:
    """Return the rollout of a proposal, ready to be started.

    Args:
        settings: of this machine.
        path: of the proposal.
        key: signs the commands; the settings' key when None.

    Raises:
        PolicyRefused: nobody who counts here has signed it, too few have, it is over, or it begins later.
        RolloutError: the proposal cannot be read.
    """
    proposal = read_proposal(path)
    return approved(planned_of(settings, proposal.head, key=key), proposal.mandate)


def planned_of(settings: Settings, head: JournalHead, *, key: KeyGiven = None) -> PlannedRollout:
    """Return the rollout that the head of a proposal describes, without its mandate: see `approved`.

    Args: as of `plan_approved`.

    Raises:
        PolicyRefused: there is no key, or no report could be believed.
        KeyFileError: a key file cannot be used.
    """
    return PlannedRollout(
        settings=settings,
        plan=head.plan,
        key=signing_key(settings, key),
        trust=load_report_trust(settings),
        evidence=head.evidence or _builds_since(settings, head.plan),
        without_build=head.without_build,
        override_lock=head.override_lock,
        asks=head.asks,
    )


def approved(planned: PlannedRollout, mandate: HeldMandate) -> PlannedRollout:
    """Return a planned rollout with its mandate: with the signatures that count here.

    Raises:
        PolicyRefused: nobody who counts here has signed it, too few have, it is over, or it begins later; or the plan
            lies outside of it.
    """
    now, plan, settings = utc_now(), planned.plan, planned.settings
    require_canonical(mandate)
    require_inside(mandate, plan, without_build=planned.without_build, override_lock=planned.override_lock)
    if objection := time_objection(mandate.message, now):
        raise PolicyRefused(objection, "" if now < mandate.message.not_before else "propose the rollout again")
    desk = ApprovalDesk.from_settings(settings).asking(planned.asks)
    counting, left_out = desk.counting(mandate, now)
    if missing := desk.judge(counting, now):
        raise PolicyRefused(
            f"rollout {plan.rollout} is not approved: {missing}", f"`deploykit approve {plan.rollout}` adds a signature"
        )
    notes = tuple(f"the signature by key {each.fingerprint} is left out: {each.problem}" for each in left_out)
    return attrs.evolve(planned, mandate=counting, notes=(*planned.notes, *notes))


def _builds_since(settings: Settings, plan: Plan) -> tuple[BuildEvidence, ...]:
    """Return the build results that are known by now, where none were when the rollout was proposed."""
    if plan.kind != "deploy":
        return ()
    return evidence_for(settings, plan.site, sources_of(settings, plan.site, plan.targets[plan.nodes[0]]), ())[0]


def require_no_mandate(planned: PlannedRollout) -> None:
    """Accept a rollout without a mandate, as far as this machine knows what the site asks for, or nodes said it.

    Raises:
        PolicyRefused: the site asks for a mandate, or the rollout repeats one that had a mandate, and it has none.
    """
    if planned.mandate is not None:
        return
    if planned.retried:
        raise PolicyRefused(
            f"rollout {planned.retried} ran under a mandate, and a mandate is for one rollout id: "
            f"the retry is rollout {planned.plan.rollout}, and needs one of its own",
            "add --propose, or --approve-with KEY",
        )
    wanted = strictest((asked_here(planned.settings, planned.plan.site), planned.asks))
    if wanted is not None:
        asks = "a person's signature" if wanted.signatures == 1 else f"{wanted.signatures} people's signatures"
        raise PolicyRefused(
            f"site {planned.plan.site} asks for {asks}: nodes refuse a rollout without a mandate",
            "add --propose, or --approve-with KEY",
        )


__all__ = ["MOST_NODES", "approved", "mandate_for", "plan_approved", "planned_of", "propose", "require_no_mandate"]
