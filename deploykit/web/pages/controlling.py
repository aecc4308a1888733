"""What can be asked of a rollout that is under way: pause, go on, end it; with a page in between where nodes change."""

from __future__ import annotations

from typing import Final, Literal, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from deploykit.errors import ActionRefused
from deploykit.web.actions.asked import ControlAsked
from deploykit.web.pages.acting import go
from deploykit.web.pages.confirming import ConfirmPage, confirm
from deploykit.web.pages.deploying import rollout_of
from deploykit.web.pages.filters import counted, number, ref_words
from deploykit.web.pages.rolloutbuttons import abort_words, reached
from deploykit.web.projection.rolloutviews import RolloutOverview
from deploykit.web.requests import actions_of, fields_of, viewer_of

ControlKind = Literal["pause", "resume", "promote", "abort"]
_KINDS: Final = ("pause", "resume", "promote", "abort")


def ask_first(request: Request) -> Response:
    """Return the page on which somebody confirms that a rollout shall end."""
    back = bool(request.query_params.get("rollback"))
    one = rollout_of(request, "end a rollout")
    return confirm(request, abort_page(one, back=back))


def abort_page(one: RolloutOverview, *, back: bool) -> ConfirmPage:
    """Return what is said before a rollout is ended."""
    name = ref_words(one.ref) or one.kind
    count = reached(one)
    rest = sum(one.counts.values()) - count
    facts = [f"{name} is live on {number(count)} of {counted(count + rest, 'node')} by now."]
    if back:
        facts.append("Each that has it goes back to what it had before. Nodes at work finish first.")
    else:
        facts.append("Each that has it keeps it. Nodes at work finish.")
    facts.append("No other node is asked any more.")
    return ConfirmPage(
        title=f"End the {one.kind} of {name}" + (", and go back" if back else ""),
        facts=tuple(facts),
        button=abort_words(one, back=back),
        fields={"kind": "abort", "rollback": "yes" if back else ""},
        to=("deploys", one.rollout, "control"),
        back=("deploys", one.rollout),
        site=one.site,
    )


def control(request: Request) -> Response:
    """Ask something of a rollout."""
    fields, id_ = fields_of(request), str(request.path_params["id"])
    kind = fields.get("kind", "")
    if kind not in _KINDS:
        raise ActionRefused(f"{kind[:20]!a} cannot be asked of a rollout", f"one of {', '.join(_KINDS)}", status=422)
    asked = ControlAsked(kind=cast(ControlKind, kind), rollback=kind == "abort" and bool(fields.get("rollback")))
    outcome = actions_of(request).rollouts.control(viewer_of(request), id_, asked)
    return go(request, "deploys", id_, outcome=outcome)


def routes() -> list[BaseRoute]:
    """Return the routes of these pages."""
    path = "/deploys/{id}/control"
    return [Route(path, ask_first, methods=["GET"]), Route(path, control, methods=["POST"])]


__all__ = ["abort_page", "routes"]
