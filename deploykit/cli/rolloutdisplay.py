"""What a running rollout prints: lines when piped, JSON lines for scripts; `liverollout.py` draws on a terminal.

All is called on the thread that runs the coordinator. A display raises nothing but `OSError`: its reader is gone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import click

from deploykit.cli.options import print_json
from deploykit.cli.rolloutsummary import promote_command, summary_entry, summary_lines
from deploykit.cli.rollouttext import change_lines, plan_entry, plan_title, twin_lines
from deploykit.cli.visible import visible
from deploykit.fleet.observer import RolloutObserver
from deploykit.fleet.view import RolloutView

if TYPE_CHECKING:
    from deploykit.fleet.plan import Plan
    from deploykit.fleet.rollout import RolloutModel
    from deploykit.fleet.summary import RolloutSummary
    from deploykit.fleet.view import ViewChange
    from deploykit.messages import DeployProgressed, DeployReported
    from deploykit.names import NodeName

#: Seconds after which a piped rollout prints what it waits for, where nothing else was printed; doubled up to the
#: second number.
_QUIET: Final = (10.0, 80.0)
#: The first time it is printed sooner: whoever looks at a new rollout wants to know what it is at.
_FIRST: Final = 1.0


class RolloutDisplay(RolloutObserver):
    """Follows one rollout. Use it as a context manager; derive from it to print.

    Args:
        plan: of the rollout.
        through: URL of the console that coordinates it; commands that are suggested then name it.
    """

    def __init__(self, plan: Plan, *, through: str = "") -> None:
        self.plan, self.through = plan, through
        self.view = RolloutView(plan, self.now())

    @staticmethod
    def now() -> float:
        """Return the clock of the display: it is shown as durations only."""
        return time.monotonic()

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def changed(self, model: RolloutModel) -> None:
        """Show the rollout's new state."""
        self._show(self.view.follow(model, self.now()))

    def reported(self, report: DeployReported) -> None:
        """Show the steps in a report that no progress event had shown, and that several agents use the node's name."""
        for line in twin_lines(report):
            self._note(line)
        self._show(self.view.reported(report, self.now()))

    def doubted(self, node: NodeName, reason: str) -> None:
        """Show that a report was not believed."""
        self.view.doubted(node, reason)
        self._note(f"a report in the name of {node} was not believed: {reason}")

    def progressed(self, progress: DeployProgressed) -> None:
        """Show what a node does."""
        self._show(self.view.hear(progress, self.now()))

    def problem(self, text: str) -> None:
        """Show what is wrong with the connection."""
        self._note(text)

    # -- for those that print ------------------------------------------------------------------------------------------

    def ended(self, summary: RolloutSummary) -> None:
        """Print how it ended, and what comes next: to standard error where somebody has to do something."""
        for line in summary_lines(summary, through=self.through):
            click.echo(line, err=summary.exit_code != 0)

    def _begin(self) -> None:
        """Print what stands at the beginning."""

    def _show(self, changes: Sequence[ViewChange]) -> None:
        """Print changes."""

    def _note(self, text: str) -> None:
        """Print one line that is no change of the rollout."""
        click.echo(f"deploykit: {visible(text)}", err=True)

    def _end(self) -> None:
        """Leave the terminal as it was."""


class PlainRollout(RolloutDisplay):
    """One line for each change of state; while nothing changes, now and then what is waited for.

    Args:
        steps: print each step and its output, too: by default where there is one node.
    """

    def __init__(self, plan: Plan, *, steps: bool | None = None, through: str = "") -> None:
        super().__init__(plan, through=through)
        self._steps = len(plan.nodes) == 1 if steps is None else steps
        self._printed = self.now()
        self._quiet = _QUIET[0]
        self._first = True
        self._paused: float | None = None

    def _begin(self) -> None:
        self._print(plan_title(self.plan))

    def _show(self, changes: Sequence[ViewChange]) -> None:
        for line in change_lines(changes, self.view, steps=self._steps):
            self._print(line)
            self._quiet = _QUIET[0]
        model = self.view.model
        if model is not None and model.task == "pause" and model.until is None and model.paused_since != self._paused:
            self._paused = model.paused_since
            self._print(f"waits for a person: {promote_command(self.plan.rollout, self.through)}")

    def tick(self) -> None:
        """Print what is waited for, where nothing else was printed for some time."""
        now = self.now()
        quiet = now - self._printed
        if quiet < (_FIRST if self._first else self._quiet):
            return
        if waiting := self.view.waiting(now):
            if not self._first:
                self._quiet = min(_QUIET[1], 2 * self._quiet)
            self._first = False
            self._print(waiting)

    def _print(self, line: str) -> None:
        click.echo(f"{datetime.now().astimezone():%H:%M:%S} {visible(line)}")
        self._printed = self.now()


class JsonRollout(RolloutDisplay):
    """JSON lines: see docs/rollout-lines.schema.json."""

    def _begin(self) -> None:
        self._print("plan", **plan_entry(self.plan))

    def _show(self, changes: Sequence[ViewChange]) -> None:
        for change in changes:
            if change.kind == "rollout":
                picture = self.view.picture(self.now(), rows=0)
                self._print("rollout", state=change.state, counts=dict(picture.counts), detail=change.detail)
            elif change.kind == "node":
                self._print(
                    "node",
                    node=change.node,
                    state=change.state,
                    phase=change.phase,
                    step=change.step,
                    detail=change.detail,
                )
            elif change.kind == "step":
                self._print(
                    "step",
                    node=change.node,
                    phase=change.phase,
                    step=change.step,
                    state=change.state,
                    seconds=change.seconds,
                    exit_code=change.exit_code,
                )
            else:
                lines = list(change.lines)
                self._print("output", node=change.node, phase=change.phase, step=change.step, lines=lines)

    def _note(self, text: str) -> None:
        self._print("note", text=text)

    def ended(self, summary: RolloutSummary) -> None:
        """Print the last line."""
        self._print("end", **summary_entry(summary))

    def _print(self, event: str, **entry: object) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        print_json({"event": event, "at": at, **entry, "rollout": self.plan.rollout})
