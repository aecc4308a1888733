"""What the pages share on which something is done: the site, who else is there, and where to go afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import attrs
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from deploykit.errors import ActionRefused, DeploykitError, LedgerError, ProjectionError
from deploykit.web.actions.ports import ConsoleActions
from deploykit.web.actions.rights import require
from deploykit.web.actions.shown import ActionOutcome, PersonPresent
from deploykit.web.pages.filters import path_of, sentence
from deploykit.web.pages.outcomes import DONE, OUTCOMES
from deploykit.web.pages.render import render
from deploykit.web.projection.queries import Queries
from deploykit.web.projection.views import PageRequested, SiteLockView, SiteSummary
from deploykit.web.requests import actions_of, context_of, viewer_of
from deploykit.web.viewer import Viewer

#: Seconds that a page waits until the bus has told of what was done.
HEARD_WITHIN = 1.5
#: What somebody does who has a page open, as the others read it, by the word in its address.
PLACES: Mapping[str, str] = {
    "deploy": "prepares a deploy",
    "rollback": "prepares a way back",
    "lock": "looks at the lock",
    "retry": "prepares another try",
}


@attrs.frozen(kw_only=True, slots=True)
class RefusalShown:
    """Why something was not done, for the page on which it was asked.

    Args:
        problem, remedy: in sentences.
        fields: what is wrong with which field.
    """

    problem: str
    remedy: str = ""
    status: int = 422
    fields: Mapping[str, str] = attrs.field(factory=dict, eq=dict, hash=False)

    def at(self, *names: str) -> str:
        """Return what is wrong with the first of some fields that has a problem; empty for nothing."""
        return next((sentence(self.fields[name], ".") for name in names if name in self.fields), "")


@attrs.frozen(kw_only=True, slots=True)
class ActingSite:
    """A site on which somebody is about to do something.

    Args:
        locked: the lock in force.
        running: the id of the rollout that is under way; empty for none.
        present: who else has such a page open.
        place: the word of this page in addresses, for the part of it that changes.
    """

    site: str
    summary: SiteSummary
    locked: SiteLockView | None = None
    running: str = ""
    present: tuple[PersonPresent, ...] = ()
    place: str = "deploy"


def refusal_of(error: DeploykitError) -> RefusalShown:
    """Return why something was not done, for the form that asked for it.

    Raises:
        DeploykitError: it has a page of its own: there is no such thing, or what the console keeps cannot be read.
    """
    if isinstance(error, ActionRefused):
        if error.status == 404:
            raise error
        status, fields = error.status, error.problems
    elif isinstance(error, (LedgerError, ProjectionError)):
        raise error
    else:  # nodes or the origin cannot be asked now
        status, fields = 503, {}
    return RefusalShown(
        problem=sentence(error.problem, "."), remedy=sentence(error.remedy, "."), status=status, fields=fields
    )


def acting_site(request: Request, place: str, *, what: str) -> ActingSite:
    """Return the site of an address, for somebody who may do something there; note that they are on its page.

    Args:
        what: as in "may not WHAT".

    Raises:
        ActionRefused: there is no such site, or they may not.
    """
    name = str(request.path_params["site"])
    viewer, queries = viewer_of(request), context_of(request).queries
    require(viewer, name, "live" if place == "lock" else "stage", what)
    summary = queries.site(viewer, name)
    if summary is None:
        raise ActionRefused(f"there is no site {name[:80]!a}", "see the list of sites", status=404)
    return ActingSite(
        site=name,
        summary=summary,
        locked=summary.lock,
        running=running_of(queries, viewer, name),
        present=present_at(actions_of(request), viewer, name, place),
        place=place,
    )


def present_at(actions: ConsoleActions, viewer: Viewer, site: str, place: str) -> tuple[PersonPresent, ...]:
    """Return who else has a page open from which a site can be changed; note that the viewer has."""
    return tuple(actions.presence.here(viewer, site, PLACES[place]))


def running_of(queries: Queries, viewer: Viewer, site: str) -> str:
    """Return the rollout of a site that is under way, as far as the bus has told; empty for none."""
    newest = queries.rollouts(viewer, site, PageRequested(limit=1)).items
    return newest[0].rollout if newest and newest[0].ended is None and not newest[0].single else ""


def go(request: Request, *parts: object, outcome: ActionOutcome | None = None) -> Response:
    """Return a redirect to a page of ours, which shows what came of the action.

    Args:
        parts: of the path.
    """
    done = {DONE: OUTCOMES.keep(viewer_of(request).name, outcome)} if outcome is not None else {}
    return redirect(request, parts, done)


def redirect(request: Request, parts: Sequence[object], query: Mapping[str, str]) -> Response:
    """Return a redirect to an address of ours."""
    base = str(request.scope.get("root_path", "")).rstrip("/")
    return RedirectResponse(path_of(base, parts, dict(query)), status_code=303)


def wait_until_heard(heard: Callable[[], bool]) -> None:
    """Return as soon as the console has heard of what it did itself, or after a moment: the next page then shows it."""
    until = time.monotonic() + HEARD_WITHIN
    while not heard() and time.monotonic() < until:
        time.sleep(0.05)  # what is heard comes by the bus, on a thread of its own


def here(request: Request) -> Response:
    """Return the part of a page on which something is done that changes while it is open: who else is there."""
    word = request.query_params.get("on", "deploy")
    place = word if word in PLACES else "deploy"
    return render(request, "here.html", act=acting_site(request, place, what="see who else is there"))


__all__ = [
    "PLACES",
    "ActingSite",
    "RefusalShown",
    "acting_site",
    "go",
    "here",
    "present_at",
    "redirect",
    "refusal_of",
    "running_of",
    "wait_until_heard",
]
