"""A rollout drawn live on a terminal with rich: nodes and their steps, what is waited for, budget, what comes next.

Rules:

* Each text is a `rich.text.Text` made from `visible` text: never markup, never an escape of a terminal.
* A picture fits the window: only the rows that tell most, the other nodes are counted.
* At the end the last picture stays in the scrollback as plain text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deploykit.cli.rolloutdisplay import RolloutDisplay
from deploykit.cli.rolloutsummary import promote_command, summary_lines
from deploykit.cli.rollouttext import budget_words, counts_words, plan_title, state_words
from deploykit.cli.terminalkeys import TerminalKeys
from deploykit.cli.visible import visible
from deploykit.fleet.view import duration

if TYPE_CHECKING:
    from deploykit.fleet.nodesteps import StepMark
    from deploykit.fleet.plan import Plan
    from deploykit.fleet.summary import RolloutSummary
    from deploykit.fleet.view import NodeRow, RolloutPicture, ViewChange

_STYLES: Final = {
    "failed": "bold red",
    "silent": "bold yellow",
    "refused": "bold magenta",
    "asked": "cyan",
    "prepared": "blue",
    "active": "green",
    "succeeded": "bold green",
    "rolled-back": "yellow",
    "aborted": "yellow",
    "paused": "yellow",
    "pending": "dim",
    "skipped": "dim",
}
_GLYPHS: Final = {"began": "●", "done": "✓", "failed": "✗", "skipped": "·"}
_STEP_STYLES: Final = {"failed": "bold red", "began": "cyan", "done": "green"}
#: Least width of a step's column: its mark, and how long it took.
_CELL: Final = 7
#: What the other columns need beside the node and its steps.
_BESIDE: Final = 50
#: Seconds between two pictures, at least.
_SHORTEST: Final = 0.1
#: A picture is drawn again after so many times what drawing it took.
_SHARE: Final = 10
#: Lines of the picture that are no rows of nodes.
_AROUND: Final = 8
#: Rows that are kept at the end: a screen, not the fleet.
_KEPT: Final = 40


class LiveRollout(RolloutDisplay):
    """Draws a rollout.

    Args:
        plan: of the rollout.
        console: where to draw; a terminal.
        answer: called with whether the rollout goes on, where a person is asked.
    """

    def __init__(
        self,
        plan: Plan,
        console: Console | None = None,
        *,
        answer: Callable[[bool], None] | None = None,
        through: str = "",
    ) -> None:
        super().__init__(plan, through=through)
        self._console = console or Console(highlight=False, markup=False, emoji=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stderr=False)
        self._keys = TerminalKeys()
        self._answer = answer
        self._asking = False
        self._answered: float | None = None
        self._drawing = False
        self._draw_next = 0.0

    def tick(self) -> None:
        """Draw anew; not more often than a person can see."""
        self._ask()
        now = self.now()
        if self._drawing and now >= self._draw_next:
            self._live.update(self._drawn(), refresh=True)
            took = self.now() - now
            self._draw_next = now + max(_SHORTEST, _SHARE * took)  # the rollout comes first

    def ended(self, summary: RolloutSummary) -> None:
        """Print the last picture and the summary, to stay."""
        self._stop()
        first, *rest = summary_lines(summary, through=self.through)
        self._console.print(Text(first, style=_STYLES.get(summary.state, "bold")), soft_wrap=True)
        for line in rest:
            self._console.print(Text(line), soft_wrap=True)

    def _ask(self) -> None:
        """Ask whether a rollout that waits for a person goes on, once for each pause, and take the answer."""
        pause = self._pause()
        if pause is None or pause == self._answered or self._answer is None or not self._keys.usable:
            self._asking = False
            return
        if not self._asking:
            self._asking = True
            self._keys.forget()
        key = self._keys.pressed()
        if key in ("y", "n"):
            self._asking, self._answered = False, pause
            self._answer(key == "y")

    def _pause(self) -> float | None:
        """Return since when the rollout has waited for a person; None where it does not."""
        model = self.view.model
        waits = model is not None and model.task == "pause" and model.until is None
        return model.paused_since if model is not None and waits else None

    def _begin(self) -> None:
        self._console.print(Text(plan_title(self.plan), style="bold"), soft_wrap=True)
        self._keys.start()
        self._live.start()
        self._drawing = True
        self.tick()

    def _show(self, changes: Sequence[ViewChange]) -> None:
        if changes:
            self.tick()

    def _note(self, text: str) -> None:
        self._console.print(Text(f"deploykit: {visible(text)}", style="yellow"), soft_wrap=True)

    def _end(self) -> None:
        self._stop()

    def _stop(self) -> None:
        if not self._drawing:
            return
        self._drawing = False
        self._live.stop()
        self._keys.stop()
        picture = self.view.picture(self.now(), rows=_KEPT)
        if picture.total > _KEPT:
            picture = self.view.picture(self.now(), rows=min(_KEPT, picture.failures))
        for part in self._table(picture):
            self._console.print(part)

    # -- drawing -------------------------------------------------------------------------------------------------------

    def _drawn(self) -> RenderableType:
        size = self._console.size
        picture = self.view.picture(
            self.now(), rows=max(1, size.height - _AROUND), names=max(1, (size.width - 40) // 35)
        )
        return Group(*self._table(picture), *self._foot(picture))

    def _table(self, picture: RolloutPicture) -> Iterator[RenderableType]:
        if picture.rows:
            table = Table.grid(padding=(0, 1), expand=True)
            width = min(24, max(len(row.node) for row in picture.rows))
            steps = self._columns(picture.rows, width)
            headings = ["NODE", "BATCH", *(steps or ["STEPS"]), "STATE", "OUTPUT"]
            table.add_column(width=width, no_wrap=True, overflow="ellipsis")
            table.add_column(width=6, no_wrap=True)
            for step in steps:
                table.add_column(width=max(len(step), _CELL), no_wrap=True, overflow="ellipsis")
            if not steps:
                table.add_column(width=min(20, max(5, *(len(row.steps) for row in picture.rows))), no_wrap=True)
            table.add_column(width=19, no_wrap=True, overflow="ellipsis")
            table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
            table.add_row(*(Text(visible(word), style="dim") for word in headings))
            for row in picture.rows:
                cells = [self._cell(row.steps, step) for step in steps] or [self._strip(row.steps)]
                table.add_row(*self._row(row, cells))
            yield table
        if picture.hidden:
            yield Text(f"… and {counts_words(picture.hidden.items())}", style="dim")

    def _columns(self, rows: Sequence[NodeRow], width: int) -> list[str]:
        """Return the steps that have a column of their own: all there are, or none where the window is too narrow."""
        longest = max((row.steps for row in rows), key=len)
        names = dict.fromkeys(mark.name for marks in (longest, *(row.steps for row in rows)) for mark in marks)
        needed = sum(max(len(name), _CELL) + 1 for name in names)
        return list(names) if width + needed + _BESIDE <= self._console.size.width else []

    def _row(self, row: NodeRow, steps: Sequence[Text]) -> tuple[Text, ...]:
        style = _STYLES.get(row.state, "")
        state = f"{row.doing} {duration(row.seconds)}" if row.doing else state_words(row.state)
        tail = row.detail if row.state in ("failed", "refused", "silent") and row.detail else row.output
        return (
            Text(visible(row.node), style=style if row.state != "asked" else ""),
            Text(row.stage, style="dim"),
            *steps,
            Text(visible(state), style=style),
            Text(visible(tail), style="" if row.state in ("failed", "refused", "silent") else "dim"),
        )

    def _strip(self, steps: Sequence[StepMark]) -> Text:
        text = Text()
        for mark in steps[-20:]:
            text.append(_GLYPHS[mark.state], style=_STEP_STYLES.get(mark.state, "dim"))
        return text

    def _cell(self, steps: Sequence[StepMark], name: str) -> Text:
        mark = next((mark for mark in reversed(steps) if mark.name == name), None)
        if mark is None:
            return Text("")
        text = Text(_GLYPHS[mark.state], style=_STEP_STYLES.get(mark.state, "dim"))
        if mark.ended and mark.state != "skipped":
            text.append(f" {duration(mark.seconds)}", style="dim")
        return text

    def _foot(self, picture: RolloutPicture) -> Iterator[RenderableType]:
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(state_words(picture.state), style=_STYLES.get(picture.state, "bold cyan"))
        line.append(f"  {duration(picture.elapsed)}  {counts_words(picture.counts.items())}")
        yield Text("")
        yield line
        rest = [budget_words(picture), picture.next]
        yield Text(visible("; ".join(part for part in rest if part)), style="dim", no_wrap=True, overflow="ellipsis")
        if self._asking:
            yield Text("go on? y goes on, n ends the rollout here", style="bold yellow", no_wrap=True)
        elif self._pause() is not None and self._pause() != self._answered:
            go_on = f"paused: {promote_command(self.plan.rollout, self.through)}"
            yield Text(visible(go_on), style="bold yellow", no_wrap=True, overflow="ellipsis")
        else:
            yield Text(visible(picture.waiting), style="cyan", no_wrap=True, overflow="ellipsis")
