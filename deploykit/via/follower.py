"""Follow a rollout that a console coordinates, until it has ended: look, show, wait for an event, look again."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

import attrs

from deploykit.errors import ActionRefused, ConsoleUnreachable
from deploykit.fleet.observer import RolloutObserver
from deploykit.fleet.plan import Plan
from deploykit.fleet.rolloutmodel import RolloutModel
from deploykit.names import NodeName
from deploykit.via.answers import FollowedDetail, FollowedNode, FollowedRollout, read_answer
from deploykit.via.client import ConsoleClient
from deploykit.via.events import EventWatcher
from deploykit.via.following import agrees, model_of, parts_of, printed_of, progress_of

#: Seconds between two looks: at least, and at most where no event comes.
_LEAST: Final = 0.5
_MOST: Final = 5.0
#: A look that took long is followed by so many times that in which there is none.
_SHARE: Final = 3
_TICK: Final = 0.2
#: Seconds for which a rollout may be unknown to the console after it was begun, or the console be away.
_UNKNOWN: Final = 30.0
_AWAY: Final = 300.0
#: Nodes of one page, lines of a log that are shown.
_PAGE: Final = "500"
_LINES: Final = 20
#: Seconds after the end of a rollout in which the last reports of nodes may reach the console.
_SETTLES: Final = 6.0
_FAILED: Final = ("failure", "refused", "rolled-back")


@attrs.frozen(kw_only=True, slots=True)
class LookedAt:
    """A rollout as the console shows it now. `nodes`: by name, in its order."""

    rollout: FollowedRollout
    nodes: dict[str, FollowedNode]


def look_at(client: ConsoleClient, rollout: str) -> LookedAt:
    """Return a rollout with all its nodes.

    Raises:
        ConsoleUnreachable, ActionRefused, PolicyRefused: as of `ConsoleClient.get`.
    """
    path = f"/deploys/{quote(rollout, safe='')}"
    nodes: dict[str, FollowedNode] = {}
    after = ""
    while True:
        query = {"limit": _PAGE, **({"after": after} if after else {})}
        detail = read_answer(FollowedDetail, client.get(path, query).value)
        nodes |= {each.node: each for each in detail.nodes.items}
        before, after = after, _cursor(detail.nodes.next)
        if not after or after == before:
            return LookedAt(rollout=detail.summary, nodes=nodes)


def _cursor(following: str | None) -> str:
    """Return the cursor in the URL of the next page: the URL itself may be another host's."""
    from urllib.parse import parse_qs, urlsplit

    return parse_qs(urlsplit(following or "").query).get("after", [""])[0]


class RolloutFollower:
    """Follows one rollout and shows it.

    Args:
        client: of the console.
        plan: of the rollout, as far as it is known.
        observer: shows it.
        clock: monotonic seconds. now: the wall clock.
    """

    def __init__(
        self,
        client: ConsoleClient,
        plan: Plan,
        observer: RolloutObserver,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client, self._plan, self._observer = client, plan, observer
        self._clock, self._now = clock, now
        self._nodes: dict[str, FollowedNode] = {}
        self._printed: dict[str, int] = {}
        self._logs = len(plan.nodes) == 1
        self.model: RolloutModel | None = None

    def follow(self) -> RolloutModel:
        """Return how the rollout stands at its end.

        Raises:
            ConsoleUnreachable: the console has been away for minutes.
            ActionRefused, PolicyRefused: it does not show the rollout any more.
        """
        began = well = settled = self._clock()
        with EventWatcher(self._client, self._plan.site) as watcher:
            while True:
                before = self._clock()
                try:
                    seen = look_at(self._client, self._plan.rollout)
                except ConsoleUnreachable as error:
                    if self._clock() - well > _AWAY:
                        raise
                    self._observer.problem(f"{error.problem}; the rollout goes on, trying again")
                except ActionRefused as error:
                    if error.status != 404 or self._clock() - began > _UNKNOWN:
                        raise
                else:
                    well = self._clock()
                    model = self._model(seen)
                    if not model.ended:
                        settled = well
                    if not model.ended or agrees(model, seen.rollout) or well - settled > _SETTLES:
                        self._show(seen, model)
                        if model.ended:
                            return model
                self._wait(watcher, self._clock() - before)

    def _model(self, seen: LookedAt) -> RolloutModel:
        model = model_of(self._plan, seen.rollout, seen.nodes, self._now().timestamp())
        before = self.model.paused_since if self.model is not None else None
        if model.paused_since is not None and before is not None:  # the same pause: a display asks once for each
            model = attrs.evolve(model, paused_since=before)
        return model

    def _show(self, seen: LookedAt, model: RolloutModel) -> None:
        now = self._now()
        for name, node in seen.nodes.items():
            if NodeName(name) not in self._plan.targets:
                continue
            before = self._nodes.get(name)
            if node == before:
                continue
            for progress in progress_of(self._plan, node, before, now):
                self._observer.progressed(progress)
            if node.log_lines and (self._logs or (node.state in _FAILED and before != node)):
                self._print(node, now)
        self._nodes = seen.nodes
        self.model = model
        self._observer.changed(model)

    def _print(self, node: FollowedNode, now: datetime) -> None:
        """Show the last lines that a node printed; what was shown before is not shown again."""
        done = self._printed.get(node.node, 0)
        if node.log_lines <= done:
            return
        first = max(done, node.log_lines - _LINES)
        path = f"/deploys/{quote(self._plan.rollout, safe='')}/nodes/{quote(node.node, safe='')}/log"
        try:
            value = self._client.get(path, {"first": str(first), "limit": str(_LINES)}).value
        except (ActionRefused, ConsoleUnreachable):
            return  # the next look has it
        lines = value.get("lines") if isinstance(value, dict) else None
        if isinstance(lines, list) and lines:
            self._printed[node.node] = first + len(lines)
            for step, part in parts_of([str(line) for line in lines], node):
                self._observer.progressed(printed_of(self._plan, node, step, part, now))

    def _wait(self, watcher: EventWatcher, took: float) -> None:
        """Wait for an event; not shorter than the console can bear, not longer than a person can."""
        began, least, most = self._clock(), max(_LEAST, _SHARE * took), max(_MOST, _SHARE * took)
        came = False
        while True:
            waited = self._clock() - began
            if (came and waited >= least) or waited >= most:
                return
            came = watcher.wait(_TICK) or came
            self._observer.tick()


__all__ = ["LookedAt", "RolloutFollower", "look_at"]
