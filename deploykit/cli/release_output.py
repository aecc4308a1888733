"""Show a running deploy: a progress bar on a terminal, plain lines when piped."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.release import StepRecord

_MARKS = {"done": ("done", "green"), "failed": ("failed", "bold red"), "skipped": ("skipped", "dim")}


#: Characters of one line that are kept until it ends.
_LONGEST = 4096


class DeployDisplay:
    """Shows steps as they happen. Output of scripts is shown as text, never as terminal commands."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._begun = {"stdout": "", "stderr": ""}

    def __enter__(self) -> DeployDisplay:
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description:<14}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total} files"),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, name: str, record: StepRecord | None) -> None:
        """Print a step that ended; a step that started (no record) prints nothing."""
        if record is None:
            return
        self._flush()
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        word, style = _MARKS[record.outcome]
        text = Text(f"{name:<14} ") + Text(word, style=style) + Text(f" {record.seconds:.3f} s")
        if record.exit_code is not None:
            text += Text(f" exit {record.exit_code}")
        elif record.output:
            text += Text(f" {visible(record.output, tabs=True)}")
        self._console.print(text)

    def output(self, step: str, stream: str, text: str) -> None:
        """Print text from a script line by line, as it comes."""
        *lines, rest = (self._begun[stream] + text).split("\n")
        for line in lines:
            self._print(line, stream)
        if len(rest) > _LONGEST:  # a script that never ends its line must not fill the memory
            self._print(rest, stream)
            rest = ""
        self._begun[stream] = rest

    def progress(self, done: int, total: int) -> None:
        """Show how many files were written so far."""
        if self._bar is None:
            return
        if self._task is None:
            self._task = self._bar.add_task("export", total=total)
        self._bar.update(self._task, completed=done)

    def _flush(self) -> None:
        for stream, rest in self._begun.items():
            if rest:
                self._print(rest, stream)
                self._begun[stream] = ""

    def _print(self, line: str, stream: str) -> None:
        self._console.print(Text(f"    {visible(line, tabs=True)}", style="yellow" if stream == "stderr" else ""))
