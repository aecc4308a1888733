"""What is read before something is done, or while it waits: proposals, plans of a retry, access, presence."""

from __future__ import annotations

from typing import Final

from deploykit.web.actions.ports import ConsoleActions
from deploykit.web.actions.shown import AccessRow, LockState, PersonPresent, PlanShown, ProposalShown
from deploykit.web.api.operation import ApiCall, ApiOperation
from deploykit.web.api.parameters import Parameter
from deploykit.web.api.problems import RequestRefused
from deploykit.web.context import ConsoleContext
from deploykit.web.projection.views import Paged

_SITE: Final = Parameter(name="site", description="Only of this site.")
_APPROVAL: Final = Parameter(
    name="approval",
    description="The plan of one that people sign although the site does not ask for that.",
    choices=("true",),
)


def actions_in(context: ConsoleContext) -> ConsoleActions:
    """Return what can be done.

    Raises:
        RequestRefused: this console only shows.
    """
    if context.actions is None:
        raise RequestRefused(403, "this console only shows; nothing can be done from it")
    return context.actions


def _proposals(call: ApiCall) -> object:
    found = tuple(actions_in(call.context).rollouts.proposals(call.viewer, call.query.text("site")))
    return Paged(items=found, total=len(found))


def _proposal(call: ApiCall) -> object:
    return actions_in(call.context).rollouts.proposal(call.viewer, call.path["deploy"])


def _plan_retry(call: ApiCall) -> object:
    approval = bool(call.query.text("approval"))
    return actions_in(call.context).rollouts.plan_retry(call.viewer, call.path["deploy"], approval=approval)


def _access(call: ApiCall) -> object:
    found = tuple(actions_in(call.context).access.list(call.viewer, call.query.text("site")))
    return Paged(items=found, total=len(found))


def _presence(call: ApiCall) -> object:
    if not call.viewer.sees(call.path["site"]):
        return None
    found = tuple(actions_in(call.context).presence.here(call.viewer, call.path["site"], call.query.text("what")))
    return Paged(items=found, total=len(found))


def _lock(call: ApiCall) -> object:
    return actions_in(call.context).locks.state(call.viewer, call.path["site"])


ACTION_READS: Final = (
    ApiOperation(
        name="proposals",
        path="/proposals",
        summary="Rollouts that wait for people, newest first",
        answer=Paged[ProposalShown],
        view=_proposals,
        query=(_SITE,),
    ),
    ApiOperation(
        name="proposal",
        path="/deploys/{deploy}/proposal",
        summary="A rollout that waits for people: the bytes to sign, who has signed, what is missing",
        answer=ProposalShown,
        view=_proposal,
    ),
    ApiOperation(
        name="plan_retry",
        path="/deploys/{deploy}/retry",
        summary="What a retry of the nodes that failed, refused or were silent would do",
        answer=PlanShown,
        view=_plan_retry,
        query=(_APPROVAL,),
    ),
    ApiOperation(
        name="lock_state",
        path="/sites/{site}/lock",
        summary="What nodes show of a site's lock: what it takes to sign the next statement elsewhere",
        answer=LockState,
        view=_lock,
    ),
    ApiOperation(
        name="access",
        path="/access",
        summary="Who may see protected sites, as nodes have reported it",
        answer=Paged[AccessRow],
        view=_access,
        query=(_SITE,),
    ),
    ApiOperation(
        name="presence",
        path="/sites/{site}/presence",
        summary="Who else has a page open from which the site can be changed",
        answer=Paged[PersonPresent],
        view=_presence,
        query=(Parameter(name="what", description="What the viewer does there, for the others.", required=True),),
    ),
)

__all__ = ["ACTION_READS", "actions_in"]
