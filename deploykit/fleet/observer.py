"""What a rollout shows while it runs: a class of callbacks, called in turn on the thread that runs the coordinator."""

from __future__ import annotations

from deploykit.fleet.rollout import RolloutModel
from deploykit.messages import DeployProgressed, DeployReported
from deploykit.names import NodeName


class RolloutObserver:
    """Is called with what happens in a rollout. Override what you want to see; be quick, and raise nothing.

    Nothing here decides anything: an observer that is slow delays the next command.
    """

    def changed(self, model: RolloutModel) -> None:
        """Show a state; called first with the state that the rollout begins or goes on with."""

    def reported(self, report: DeployReported) -> None:
        """Show a report that is believed."""

    def doubted(self, node: NodeName, reason: str) -> None:
        """Show why a report in a node's name is not believed; each reason once."""

    def progressed(self, progress: DeployProgressed) -> None:
        """Show what a node does now. Its signature is good; events may be missing."""

    def problem(self, text: str) -> None:
        """Show what is wrong with the connection or well again, or with a command that the broker refused."""

    def tick(self) -> None:
        """Draw anew, some times in a second."""


__all__ = ["RolloutObserver"]
