"""Where a rollout to five nodes may be hit: its stages, and what is killed or restarted at each.

Two plots, each with the first node as canary:

    succeeds    all are prepared; the canary; a pause that somebody ends; then the other four at once
    goes-back   one after the other; the third fails, and what was activated is taken back, newest first

    preparing   the third node prepares               rolling      the third node activates, and succeeds
    canary      the first node activates              failing      the third node activates, and will fail
    paused      all are prepared, the canary is live  going-back   the second node goes back

Victims: the `broker`; the `desk`, whose rollout another process goes on with, in place or (`moved`) on another machine
from a copy of the journal; the `node` that is at work, or while the rollout is paused the third one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import product
from typing import Final, Literal

import attrs

from deploykit.fleet.plan import Target
from tests.support.fivenodes.books import Books
from tests.support.fivenodes.world import FiveNodes

Plot = Literal["succeeds", "goes-back"]
Stage = Literal["preparing", "canary", "paused", "rolling", "failing", "going-back"]
Victim = Literal["broker", "desk", "moved", "node"]

VICTIMS: Final[tuple[Victim, ...]] = ("broker", "desk", "moved", "node")

STAGES: Final[dict[Plot, tuple[Stage, ...]]] = {
    "succeeds": ("preparing", "canary", "paused", "rolling"),
    "goes-back": ("preparing", "canary", "failing", "going-back"),
}
#: The node that is at work.
AT_WORK: Final[dict[Stage, str]] = {
    "preparing": "web3",
    "canary": "web1",
    "paused": "web3",
    "rolling": "web3",
    "failing": "web3",
    "going-back": "web2",
}
_OPTIONS: Final[dict[Plot, tuple[str, ...]]] = {
    "succeeds": ("--batch", "4", "--pause", "ask"),
    "goes-back": ("--batch", "1", "--on-failure", "rollback"),
}


@attrs.frozen
class Hit:
    """One point of the sweep."""

    plot: Plot
    stage: Stage
    victim: Victim

    def __str__(self) -> str:
        return f"{self.plot}: {self.victim} while {self.stage}"


ALL_HITS: Final = tuple(
    Hit(plot, stage, victim) for plot, stages in STAGES.items() for stage, victim in product(stages, VICTIMS)
)


def killable(hits: Iterable[Hit]) -> frozenset[str]:
    """Return the nodes whose agents have to be processes."""
    return frozenset(AT_WORK[hit.stage] for hit in hits if hit.victim == "node")


def play(fleet: FiveNodes, plot: Plot, *hits: Hit) -> None:
    """Play one rollout with some hits in it, and compare the books.

    Raises:
        AssertionError: it does not end as it would have, or the books do not agree.
    """
    old, new = fleet.level(), fleet.push()
    victims = {hit.stage: hit.victim for hit in hits}
    assert all(hit.plot == plot for hit in hits)
    steps = _steps(fleet, plot, old, new, victims)
    with ExitStack() as stack:
        for stage in steps:
            victim = victims.get(stage) if stage is not None else None
            if stage is None or victim is None:
                continue
            stack.enter_context(fleet.people_away())  # who approved it did so before it began
            _kill(fleet, stage, victim)
            next(steps)  # what this stage does goes on without it
            _revive(fleet, stage, victim)
        done = fleet.desk.wait()
    back = plot == "goes-back"
    assert done.code == (1 if back else 0), done.output
    stored = Books(fleet=fleet, old=old, new=new).compare(**({} if back else dict.fromkeys(fleet.places, "new")))
    assert stored.model.state == ("rolled-back" if back else "succeeded")
    assert fleet.asked("activate", new) == {"web1", "web2", "web3", *(() if back else ("web4", "web5"))}


def _steps(
    fleet: FiveNodes, plot: Plot, old: Target, new: Target, victims: dict[Stage, Victim]
) -> Iterator[Stage | None]:
    """Yield each stage when it is reached, then None when what it does was begun."""
    if plot == "goes-back":
        fleet.order("fail", "web3", "post-deploy", new)
    held: list[tuple[Stage, str, Target]] = [("preparing", "pre-deploy", new), ("canary", "post-deploy", new)]
    held += [("rolling", "post-deploy", new)] if plot == "succeeds" else [("failing", "post-deploy", new)]
    held += [("going-back", "post-deploy", old)] if plot == "goes-back" else []
    for stage, script, target in held:
        if stage in victims:
            fleet.order("hold", AT_WORK[stage], script, target)
    fleet.desk.start(new, *_OPTIONS[plot])
    for stage, script, target in held:
        if stage == "rolling":
            yield from _pause(fleet, victims.get("paused"))
        if stage in victims:
            fleet.wait_held(AT_WORK[stage], script, target)
            yield stage
            fleet.let_go_of(AT_WORK[stage], script, target)
            yield None


def _pause(fleet: FiveNodes, victim: Victim | None) -> Iterator[Stage | None]:
    fleet.desk.wait_paused()
    yield "paused"
    if victim not in ("desk", "moved"):  # who goes on with a rollout that is paused ends the pause
        fleet.desk.ask("promote")
    yield None


def _kill(fleet: FiveNodes, stage: Stage, victim: Victim) -> None:
    if victim == "broker":
        fleet.broker.settle()
        fleet.broker.kill()
    elif victim == "node":
        fleet.places[AT_WORK[stage]].kill()
    else:
        fleet.desk.kill()


def _revive(fleet: FiveNodes, stage: Stage, victim: Victim) -> None:
    if victim == "broker":
        fleet.broker.start()
    elif victim == "node":
        fleet.places[AT_WORK[stage]].start()
    elif victim == "desk":
        fleet.desk.resume()
    else:
        fleet.desk.resume_elsewhere()
