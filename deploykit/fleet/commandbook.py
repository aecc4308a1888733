"""Which commands of a rollout exist, and whose answers are still wanted. Pure: the same live and replayed."""

from __future__ import annotations

from datetime import datetime

from deploykit.fleet.commands import SentCommand
from deploykit.fleet.plan import Target
from deploykit.fleet.rolloutevents import Ask
from deploykit.messages import DeployOutcome, DeployPhase
from deploykit.names import NodeName


class CommandBook:
    """The commands of a rollout, by id and by node.

    An answer to any command of a phase answers all commands of that phase to that node: a resumed coordinator may have
    asked twice, because the first command had expired. After a success only a failure is news: of a machine that was
    cloned, the second agent may report one.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, SentCommand] = {}
        self._open: dict[tuple[NodeName, DeployPhase], list[SentCommand]] = {}
        self._succeeded: dict[tuple[NodeName, DeployPhase], list[SentCommand]] = {}

    def add(self, command: SentCommand) -> None:
        """Note a command that is sent, or was."""
        request = command.request
        self._by_id[request.id] = command
        for node in request.audience:
            self._open.setdefault((node, request.phase), []).append(command)

    def answered(self, node: NodeName, phase: DeployPhase, outcome: DeployOutcome) -> None:
        """Note that a node has answered: its further reports on that phase are repetitions."""
        found = self._open.pop((node, phase), [])
        if outcome == "success":
            self._succeeded[node, phase] = found
        else:
            self._succeeded.pop((node, phase), None)

    def is_ours(self, request: str) -> bool:
        """Return whether an id is that of a command of this rollout."""
        return request in self._by_id

    def wanted(self, node: NodeName, request: str, outcome: DeployOutcome = "success") -> SentCommand | None:
        """Return the command that a report of a node answers; None where it answers none, or nothing new."""
        command = self._by_id.get(request)
        if command is None:
            return None
        key = (node, command.request.phase)
        waiting = self._open.get(key, ()) or (self._succeeded.get(key, ()) if outcome != "success" else ())
        return command if any(other is command for other in waiting) else None

    def usable(self, node: NodeName, ask: Ask, now: datetime) -> SentCommand | None:
        """Return the newest command that asks a node for just this and can still be obeyed."""
        for command in reversed(self._open.get((node, ask.phase), ())):
            request = command.request
            if Target.of(request) == ask.target and now < request.expires:
                return command
        return None


__all__ = ["CommandBook"]
