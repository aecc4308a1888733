"""The fleet of `consoleworld` on a night on which people do things: two who see each other, a rollout that waits."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import attrs

from deploykit.web.actions.asked import DeployAsked, GrantAsked, NodesAsked
from deploykit.web.actions.shown import PersonPresent
from deploykit.web.viewer import RoleGrant, Viewer
from tests.support.consoleworld import NOW, ago, small_world
from tests.support.fixedactions import FixedActions
from tests.support.fixedqueries import FixedQueries

ADA: Final = Viewer(name="ada", grants=(RoleGrant(sites="*", role="live"),))
#: A rollout that waits for its second signature, and one that waits for somebody to go on.
WAITING: Final = "r-docs"
PAUSED: Final = "r-paused"


def busy_actions() -> FixedActions:
    """Return actions of a console on which `WAITING` waits, carol has access, and bob has a form open."""
    acts = FixedActions(
        needs={"docs": 2},
        present=(PersonPresent(name="bob", what="prepares a deploy", since=NOW - timedelta(minutes=2)),),
    )
    asked = DeployAsked(site="docs", ref="v2.4.1", chosen=NodesAsked(everybody=True), reason="the fair begins tomorrow")
    acts.begin(ADA, asked)
    first = next(iter(acts.waiting))
    acts.sign(ADA, first, "c2lnbmF0dXJlIG9mIGFkYQ==")
    proposal = acts.waiting.pop(first)
    acts.waiting[WAITING] = attrs.evolve(proposal, rollout=WAITING, command=f"deploykit approve {WAITING}")
    acts.access.grant(ADA, GrantAsked(site="billing", user="carol"))
    acts.asked.clear()
    acts.access.asked.clear()
    return acts


def busy_world() -> FixedQueries:
    """Return the small world with `PAUSED`, a rollout of search whose canary is fine."""
    world = small_world()
    paused = attrs.evolve(
        world.rollout_list[0],
        rollout=PAUSED,
        site="search",
        state="paused",
        counts={"active": 1, "pending": 3},
        failed=(),
        detail="the canary is fine",
        began=ago(minutes=5),
        ended=None,
    )
    world.rollout_list = (paused, *world.rollout_list)
    return world


__all__ = ["ADA", "PAUSED", "WAITING", "busy_actions", "busy_world"]
