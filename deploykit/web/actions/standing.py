"""What else goes on at a site: rollouts of this console, and of others that the bus has announced.

Rules:

* A rollout that runs on this console or its database keeps another one from beginning.
* So does one that was begun since somebody looked at their plan, wherever it was begun.
* One that was begun elsewhere before that only warns: its coordinator may be long gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from deploykit.errors import ActionRefused
from deploykit.messages import one_line
from deploykit.messages.site import name_of
from deploykit.names import SiteName
from deploykit.web.actions.hostport import ConsoleRollout, RolloutDesk
from deploykit.web.actions.plandigest import made_at
from deploykit.web.projection.queries import Queries
from deploykit.web.projection.rolloutviews import RolloutOverview
from deploykit.web.projection.views import PageRequested
from deploykit.web.viewer import Viewer

#: Rollouts of a site that are looked at, the newest.
_LOOKED: Final = 10
_ENDS: Final = frozenset({"succeeded", "failed", "aborted", "rolled-back"})


def require_alone(kept: RolloutDesk, queries: Queries, viewer: Viewer, site: SiteName, plan: str) -> None:
    """Accept a rollout of a site where none runs, and none was begun since its plan was shown.

    Args:
        kept: the rollouts of this console.
        queries, viewer: what the bus has told.
        site: the site.
        plan: the digest that was shown; empty: nobody looked.

    Raises:
        ActionRefused: 409, with who began what, and when.
    """
    running = kept.running(site)
    if running is not None:
        raise ActionRefused(f"{described(running)}, and it runs", "watch it, or abort it, and plan again", status=409)
    since = made_at(plan) if plan else None
    if since is None:
        return
    newest = kept.newest(site)
    if newest is not None and newest.begun > since and newest.state != "proposed":
        raise _changed(described(newest))
    for each in queries.rollouts(viewer, site, PageRequested(limit=_LOOKED)).items:
        if each.began is not None and each.began.timestamp() > since:
            raise _changed(_heard(each))


def running_elsewhere(kept: RolloutDesk, queries: Queries, viewer: Viewer, site: SiteName) -> Iterator[str]:
    """Yield a line for each rollout of other machines that runs on a site, as far as the bus has announced it."""
    for each in queries.rollouts(viewer, site, PageRequested(limit=_LOOKED)).items:
        open_ = each.ended is None and each.state not in _ENDS and not each.single
        if open_ and kept.find(each.rollout) is None:
            where = f" on {one_line(each.host, 60)}" if each.host else ""
            yield f"{_heard(each)}{where}, and its end was never announced"


def rollout_elsewhere(queries: Queries, viewer: Viewer, rollout: str, command: str) -> ActionRefused:
    """Return the refusal for a rollout that this console does not have: 409 where it was begun elsewhere, else 404.

    Args:
        command: what does it there.
    """
    found = queries.rollout(viewer, rollout, PageRequested(limit=1))
    if found is None:
        return ActionRefused(f"there is no rollout {rollout[:80]!a}", "see the list of deploys", status=404)
    host = one_line(found.summary.host, 60) or "another machine"
    return ActionRefused(
        f"rollout {rollout} was begun on {host}, not by this console", f"there: `{command}`", status=409
    )


def described(kept: ConsoleRollout) -> str:
    """Return who began what, and when: half a sentence."""
    plan = kept.head.plan
    what = name_of(plan.releases[0]) if len(plan.releases) == 1 else f"{len(plan.releases)} releases"
    verb = "proposed" if kept.state == "proposed" else "began"
    who = one_line(kept.requested_by or plan.requested_by, 100) or "somebody"
    at = datetime.fromtimestamp(kept.begun, UTC)
    return f"{who} {verb} rollout {plan.rollout} ({plan.kind} of {what}) at {at:%Y-%m-%d %H:%M:%S} UTC"


def _heard(each: RolloutOverview) -> str:
    what = " ".join(part for part in (one_line(each.ref, 100), each.commit[:12]) if part)
    who = one_line(each.requested_by, 100) or "somebody"
    at = f" at {each.began.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if each.began is not None else ""
    return f"{who} began rollout {one_line(each.rollout, 200)} ({each.kind}{f' of {what}' if what else ''}){at}"


def _changed(what: str) -> ActionRefused:
    return ActionRefused(f"{what}: that was after you looked", "look at the plan again", status=409)


__all__ = ["described", "require_alone", "rollout_elsewhere", "running_elsewhere"]
