"""The pages on which a rollout begins: deploy, rollback, and another try of one that failed.

Rules:

* A plan is shown before anything is done. What is pressed then carries the plan's digest: a plan that would come out
  otherwise by now is shown anew, and nothing is done.
* A form that is wrong is shown again as it was typed, with what is wrong beside its field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, Literal

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from deploykit.errors import ActionRefused, DeploykitError
from deploykit.web.actions.rights import require
from deploykit.web.actions.shown import ActionOutcome, PlanShown
from deploykit.web.pages.acting import (
    ActingSite,
    RefusalShown,
    acting_site,
    go,
    here,
    present_at,
    redirect,
    refusal_of,
    wait_until_heard,
)
from deploykit.web.pages.filters import ref_words
from deploykit.web.pages.render import render
from deploykit.web.pages.rolloutbuttons import PlanStage, button_words, stages_of
from deploykit.web.pages.rolloutforms import BOX, TypedRollout, boxes_of, typed_of
from deploykit.web.projection.activityviews import RefView
from deploykit.web.projection.rolloutviews import RolloutOverview
from deploykit.web.projection.views import PageRequested
from deploykit.web.requests import actions_of, context_of, fields_of, viewer_of
from deploykit.web.rolloutlookup import find_rollout

#: Refs with a button each, and those that are proposed while a name is typed; nodes of a plan that are listed.
_OFFERED: Final = 5
_PROPOSED: Final = 200
LISTED_NODES: Final = 200
_NUMBERS: Final = re.compile(r"(\d{1,18})")

FormKind = Literal["deploy", "rollback"]
_DOING: Final[Mapping[FormKind, str]] = {"deploy": "plan a deploy", "rollback": "plan a way back"}


@attrs.frozen(kw_only=True, slots=True)
class PlanView:
    """A plan as a page shows it.

    Args:
        button: what is written on the button; empty where there is none.
        stopped: why there is no button, in sentences.
        cut: nodes that are not listed.
    """

    plan: PlanShown
    stages: tuple[PlanStage, ...]
    button: str
    stopped: tuple[str, ...] = ()
    cut: int = 0


def deploy_form(request: Request) -> Response:
    """Return the form of a deploy; with the plan, where the address says what is chosen."""
    return _shown(request, "deploy")


def rollback_form(request: Request) -> Response:
    """Return the form of a rollback; with the plan, where the address says what is chosen."""
    return _shown(request, "rollback")


def deploy_begin(request: Request) -> Response:
    """Carry out the plan that was shown, or show it where none was."""
    return _begun(request, "deploy")


def rollback_begin(request: Request) -> Response:
    """Carry out the plan that was shown, or show it where none was."""
    return _begun(request, "rollback")


def _shown(request: Request, kind: FormKind) -> Response:
    act = acting_site(request, kind, what=_DOING[kind])
    typed = typed_of(act.site, request.query_params)
    if any(not value for value in request.query_params.values()):
        return redirect(request, ("sites", act.site, kind), typed.values)  # a link that can be read
    return _planned(request, kind, act, typed) if typed.chooses else _page(request, kind, act, typed)


def _begun(request: Request, kind: FormKind) -> Response:
    fields = fields_of(request)
    act = acting_site(request, kind, what=_DOING[kind])
    typed, digest = typed_of(act.site, fields), fields.get("plan", "")
    if not digest or typed.problems:
        return _planned(request, kind, act, typed)
    asked = typed.deploy(digest) if kind == "deploy" else typed.rollback(digest)
    try:
        outcome = actions_of(request).rollouts.begin(viewer_of(request), asked)
    except DeploykitError as error:
        return _planned(request, kind, act, typed, refusal=refusal_of(error))
    return _after(request, act.site, outcome)


def _after(request: Request, site: str, outcome: ActionOutcome) -> Response:
    if outcome.state == "started":
        queries, viewer, one = context_of(request).queries, viewer_of(request), PageRequested(limit=1)
        wait_until_heard(lambda: queries.rollout(viewer, outcome.rollout, one) is not None)
    if not outcome.rollout:
        return go(request, "sites", site, outcome=outcome)
    return go(request, "deploys", outcome.rollout, *(["approve"] if outcome.state == "proposed" else []),
              outcome=outcome)  # fmt: skip


def _planned(
    request: Request, kind: FormKind, act: ActingSite, typed: TypedRollout, refusal: RefusalShown | None = None
) -> Response:
    """Return the form with the plan for what is typed, or with why there is none."""
    if typed.problems:
        wrong = RefusalShown(problem="That is too long.", fields=typed.problems)
        return _page(request, kind, act, typed, refusal=refusal or wrong)
    try:
        asked = typed.deploy() if kind == "deploy" else typed.rollback()
        plan = actions_of(request).rollouts.plan(viewer_of(request), asked)
    except DeploykitError as error:
        return _page(request, kind, act, typed, refusal=refusal or refusal_of(error))
    return _page(request, kind, act, typed, refusal=refusal, plan=plan)


def _page(
    request: Request,
    kind: FormKind,
    act: ActingSite,
    typed: TypedRollout,
    *,
    refusal: RefusalShown | None = None,
    plan: PlanShown | None = None,
) -> Response:
    viewer, queries = viewer_of(request), context_of(request).queries
    refs = queries.refs(viewer, act.summary.repo, PageRequested(limit=_PROPOSED)).items if act.summary.repo else ()
    nodes = [one.node for one in queries.site_nodes(viewer, act.site, PageRequested(limit=_PROPOSED)).items]
    offered = offered_refs(refs)
    view = plan_view(request, plan, overridden=bool(typed.get("override_lock"))) if plan is not None else None
    return render(
        request,
        "deployform.html",
        status=refusal.status if refusal is not None else 200,
        kind=kind,
        act=act,
        typed=typed,
        box=BOX,
        boxes=boxes_of(sorted(nodes)) if act.summary.nodes <= len(nodes) else (),
        offered=offered,
        other=other_ref(typed.get("ref") or typed.get("to"), offered),
        refs=refs,
        overrides=viewer.may(act.site, "admin"),
        refusal=refusal,
        view=view,
        hidden_fields={**typed.values, "plan": plan.digest} if plan is not None else {},
    )


def other_ref(ref: str, offered: tuple[RefView, ...]) -> str:
    """Return a ref as it stands in the field for any other; empty where it has a button of its own."""
    return "" if any(ref in (one.ref, ref_words(one.ref)) for one in offered) else ref_words(ref)


def _age_and_number(one: RefView) -> tuple[float, list[tuple[int, str]]]:
    """Return when a ref was made and, for those of one moment, its name with numbers as numbers."""
    parts = [(int(part), "") if part.isdigit() and part.isascii() else (-1, part) for part in _NUMBERS.split(one.ref)]
    return (one.time.timestamp() if one.time else 0.0, parts)


def offered_refs(refs: tuple[RefView, ...]) -> tuple[RefView, ...]:
    """Return the refs that have a button each: the newest tags first, then branches; never more than a few."""
    newest = sorted(refs, key=_age_and_number, reverse=True)
    tags = [one for one in newest if one.ref.startswith("refs/tags/")]
    branches = [one for one in newest if not one.ref.startswith("refs/tags/")]
    return tuple([*tags[: _OFFERED - 1], *branches][:_OFFERED])


def plan_view(request: Request, plan: PlanShown, *, overridden: bool = False, again: bool = False) -> PlanView:
    """Return a plan for a page, with the button where it can be carried out.

    Args:
        overridden: the lock of the site is to be ignored.
        again: it is a retry.
    """
    viewer = viewer_of(request)
    stopped = []
    if not plan.nodes:
        stopped.append("No node is left that would do anything.")
    if plan.running:
        stopped.append("A rollout of this site is under way: wait until it has ended, or end it.")
    if plan.locked and not overridden:
        stopped.append(f"The site is {plan.locked}.")
    if not plan.needs and not viewer.may(plan.site, "live"):
        stopped.append("You may propose a rollout, not start one: tick that people must sign it, and plan again.")
    kept = plan.nodes[:LISTED_NODES]
    return PlanView(
        plan=plan,
        stages=stages_of(kept),
        button="" if stopped else button_words(plan, again=again),
        stopped=tuple(stopped),
        cut=len(plan.nodes) - len(kept),
    )


def retry_form(request: Request) -> Response:
    """Return what another try would do, for the nodes on which a rollout failed."""
    return _retry_page(request)


def retry_begin(request: Request) -> Response:
    """Carry out the retry that was shown."""
    digest = fields_of(request).get("plan", "")
    if not digest:
        return _retry_page(request)
    id_ = str(request.path_params["id"])
    try:
        outcome = actions_of(request).rollouts.retry(viewer_of(request), id_, digest)
    except DeploykitError as error:
        return _retry_page(request, refusal_of(error))
    return _after(request, outcome.site, outcome)


def _retry_page(request: Request, refusal: RefusalShown | None = None) -> Response:
    actions, viewer = actions_of(request), viewer_of(request)
    one = rollout_of(request, "try it again")
    try:
        plan: PlanShown | None = actions.rollouts.plan_retry(viewer, one.rollout)
    except DeploykitError as error:
        plan, refusal = None, refusal or refusal_of(error)
    return render(
        request,
        "retry.html",
        status=refusal.status if refusal is not None else 200,
        one=one,
        view=plan_view(request, plan, again=True) if plan is not None else None,
        hidden_fields={"plan": plan.digest} if plan is not None else {},
        refusal=refusal,
        present=present_at(actions, viewer, one.site, "retry"),
    )


def rollout_of(request: Request, what: str) -> RolloutOverview:
    """Return the rollout of an address, for somebody who may do something with it.

    Raises:
        ActionRefused: it was not heard of, or they may not.
    """
    id_ = str(request.path_params["id"])
    found = find_rollout(context_of(request), viewer_of(request), id_, PageRequested(limit=1))
    if found is None:
        raise ActionRefused(f"there is no deploy {id_[:80]!a}", "see the list of deploys", status=404)
    require(viewer_of(request), found.summary.site, "stage", what)
    return found.summary


def routes() -> list[BaseRoute]:
    """Return the routes of these pages."""

    def both(path: str, show: Callable[[Request], Response], act: Callable[[Request], Response]) -> list[BaseRoute]:
        return [Route(path, show, methods=["GET"]), Route(path, act, methods=["POST"])]

    return [
        *both("/sites/{site}/deploy", deploy_form, deploy_begin),
        *both("/sites/{site}/rollback", rollback_form, rollback_begin),
        *both("/deploys/{id}/retry", retry_form, retry_begin),
        Route("/sites/{site}/here", here, methods=["GET"]),
    ]


__all__ = ["PlanView", "offered_refs", "plan_view", "rollout_of", "routes"]
