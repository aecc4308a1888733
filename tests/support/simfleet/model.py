"""One simulated node: what is live and prepared on its one site, how it answers, and which faults it has. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator

import attrs

from deploykit.messages import (
    DeployOutcome,
    DeployPhase,
    DeployProgressed,
    DeployReported,
    DeployRequested,
    NodeDescribed,
    NodeQueried,
    SiteRelease,
    SiteState,
)
from deploykit.messages.progress import ProgressState
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName


@attrs.frozen(kw_only=True, slots=True)
class Faults:
    """What goes wrong on a node.

    Args:
        silent: it never answers a command; it does answer questions.
        failing: its activation (or whole deploy) fails.
        twice: each answer is sent twice.
        slowest: seconds that its scripts take at most; each command takes a random part of them.
    """

    silent: bool = False
    failing: bool = False
    twice: bool = False
    slowest: float = 0.0


def draw_faults(count: int, *, silent: float, failing: float, slowest: float, seed: int) -> list[Faults]:
    """Return the faults of `count` nodes: exactly these parts of them are silent and failing, half answer twice.

    The first one is well: it is the canary of a rollout in the order of names.
    """
    kinds = ["silent"] * round(count * silent) + ["failing"] * round(count * failing)
    kinds += ["well"] * (count - 1 - len(kinds))
    dice = random.Random(seed)
    dice.shuffle(kinds)
    kinds.insert(0, "well")
    return [
        Faults(silent=kind == "silent", failing=kind == "failing", twice=dice.random() < 0.5, slowest=slowest)
        for kind in kinds
    ]


@attrs.frozen(kw_only=True, slots=True)
class Act:
    """A command that a node acted on: once, however often it came.

    Args:
        seconds: how long its script took, as the dice said.
    """

    request: str
    phase: DeployPhase
    seconds: float


@attrs.define(kw_only=True, slots=True)
class SimulatedNode:
    """A node with one site. `acted` has each command that it acted on, in order."""

    name: NodeName
    site: SiteName
    faults: Faults
    live: SiteRelease | None = None
    previous: SiteRelease | None = None
    prepared: SiteRelease | None = None
    acted: list[Act] = attrs.field(factory=list)
    _answers: dict[str, DeployReported] = attrs.field(factory=dict)

    def describe(self, question: NodeQueried, answers: str) -> NodeDescribed:
        """Return the answer to a question."""
        state = SiteState(
            site=self.site,
            repo=RepoName(self.site),
            release=self.live.release if self.live else "",
            ref=self.live.ref if self.live else None,
            commit=self.live.commit if self.live else None,
            previous=self.previous,
            prepared=self.prepared,
        )
        number = int("".join(filter(str.isdigit, self.name)) or 0)
        return NodeDescribed(
            source=f"agent/{self.name}",
            node=self.name,
            request=question.id,
            answers=answers,
            version="0",
            facts={"env": "live", "number": number, "rack": f"r{number % 10}"},
            classes=("web", "role::web::frontend"),
            sites=(state,),
        )

    def obey(self, request: DeployRequested, copy: str, seconds: float) -> DeployReported | None:
        """Return the report on a command; None from a silent node. A command that was obeyed is only answered again.

        Args:
            copy: the digest of the copy that came.
            seconds: how long the node's script took for it.
        """
        if self.faults.silent:
            return None
        known = self._answers.get(request.id)
        if known is None:
            self.acted.append(Act(request=request.id, phase=request.phase, seconds=seconds))
            known = self._answers[request.id] = self._act(request, copy)
        return known

    def progress(self, request: DeployRequested, number: int, state: ProgressState, seconds: float) -> DeployProgressed:
        """Return what it says of its one script."""
        return DeployProgressed(
            source=f"agent/{self.name}",
            correlation_id=request.correlation_id,
            node=self.name,
            site=self.site,
            request=request.id,
            rollout=request.rollout,
            phase=request.phase,
            number=number,
            step="script",
            state=state,
            seconds=seconds,
        )

    def _act(self, request: DeployRequested, copy: str) -> DeployReported:
        asked = SiteRelease(release=f"1-{request.commit[:8]}", ref=request.ref, commit=request.commit)
        outcome: DeployOutcome = "success"
        target: SiteRelease | None = asked
        match request.phase:
            case "prepare":
                self.prepared = asked
            case "discard":
                target, self.prepared = self.prepared, None
            case "activate" if self.prepared is None or not _same(self.prepared, request.ref, request.commit):
                outcome, target = "refused", None
            case "rollback" if self.previous is None or not _same(self.previous, request.ref, request.commit):
                outcome, target = "refused", None
            case "rollback":
                self.live, self.previous = self.previous, None
            case _ if self.faults.failing:
                outcome = "rolled-back"
            case _:
                self.previous, self.live, self.prepared = self.live, asked, None
        return DeployReported(
            source=f"agent/{self.name}",
            correlation_id=request.correlation_id,
            node=self.name,
            site=self.site,
            request=request.id,
            answers=copy,
            phase=request.phase,
            outcome=outcome,
            release=self.live.release if self.live else "",
            ref=self.live.ref if self.live else None,
            commit=self.live.commit if self.live else None,
            live_known=True,
            target=target,
            previous=self.previous,
            detail="" if outcome == "success" else f"simulated: {outcome}",
        )


def _same(release: SiteRelease, ref: RefName | None, commit: ObjectId) -> bool:
    return (release.ref, release.commit) == (ref, commit)


def node_names(count: int) -> Iterator[NodeName]:
    """Yield `sim001`, `sim002` …"""
    for number in range(1, count + 1):
        yield NodeName(f"sim{number:03d}")
