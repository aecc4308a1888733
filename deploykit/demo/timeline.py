"""The demo's output as it happens: one line for each event, for people, or as a JSON object for scripts."""

from __future__ import annotations

import json
import time
from typing import Protocol

import attrs
from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table

_COLOURS = {"developer": "cyan", "hook": "yellow", "broker": "magenta", "node": "green", "operator": "blue"}


@attrs.frozen(kw_only=True)
class CheckedClaim:
    """A claim of the demo, whether it held, and the evidence."""

    name: str
    held: bool
    shown: str
    seconds: float | None = None


class Timeline(Protocol):
    """Where a story prints its events, claims and figures."""

    def event(self, actor: str, text: str) -> None: ...
    def claim(self, claim: CheckedClaim) -> None: ...
    def text(self, title: str, body: str) -> None: ...
    def heading(self, text: str) -> None: ...
    def rollout(self, line: str) -> None: ...
    def end(self, claims: list[CheckedClaim], figures: dict[str, float]) -> None: ...


class ConsoleTimeline:
    """Lines and colours for people."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    def event(self, actor: str, text: str) -> None:
        """Print one line: when, who, what."""
        colour = _COLOURS.get(actor, "white")
        self._console.print(f"[dim]{self._now()}[/] [{colour}]{actor:>9}[/] │ {escape(text)}", highlight=False)

    def claim(self, claim: CheckedClaim) -> None:
        """Print a checked claim."""
        mark = "[green]✓[/]" if claim.held else "[red]✗[/]"
        took = f" [dim]({claim.seconds:.2f} s)[/]" if claim.seconds is not None else ""
        self._console.print(
            f"[dim]{self._now()}[/] {'':>9} {mark} {escape(claim.name)}: {escape(claim.shown)}{took}", highlight=False
        )

    def text(self, title: str, body: str) -> None:
        """Print a file the demo wrote."""
        self._console.print(f"[dim]{self._now()}[/] {'':>9} │ {escape(title)}", highlight=False)
        self._console.print(Syntax(body.strip(), "toml", background_color="default", word_wrap=True))

    def heading(self, text: str) -> None:
        """Print a line that begins a chapter."""
        self._console.print()
        self._console.rule(f"[bold]{escape(text)}", align="left", style="dim")

    def rollout(self, line: str) -> None:
        """Print nothing: a rollout draws itself."""

    def end(self, claims: list[CheckedClaim], figures: dict[str, float]) -> None:
        """Print how long each step took, and the verdict."""
        table = Table(title="What took how long", title_justify="left", show_header=False, box=None)
        longest = max(figures.values(), default=1.0) or 1.0
        for name, seconds in figures.items():
            table.add_row(name, f"{seconds * 1000:,.0f} ms", "█" * max(1, round(30 * seconds / longest)))
        self._console.print(table)
        failed = sum(not c.held for c in claims)
        verdict = f"[red]{failed} of {len(claims)} claims did not hold[/]" if failed else (
            f"[green]all {len(claims)} claims held[/]"
        )  # fmt: skip
        self._console.print(f"{verdict} in {time.monotonic() - self._began:.1f} s")

    def _now(self) -> str:
        return f"{time.monotonic() - self._began:6.2f} s"


class JsonTimeline:
    """JSON lines for scripts: `{"event": …}`, `{"claim": …}`, `{"text": …}`, at last `{"ok": …}`.

    Of a fleet also `{"chapter": …}` and `{"rollout": …}`.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()

    def event(self, actor: str, text: str) -> None:
        """Print one event."""
        self._print({"event": text, "actor": actor})

    def claim(self, claim: CheckedClaim) -> None:
        """Print one checked claim."""
        self._print({"claim": claim.name, "held": claim.held, "shown": claim.shown, "took": claim.seconds})

    def text(self, title: str, body: str) -> None:
        """Print a file the demo wrote."""
        self._print({"text": body, "title": title})

    def heading(self, text: str) -> None:
        """Print a line that begins a chapter."""
        self._print({"chapter": text})

    def rollout(self, line: str) -> None:
        """Print a JSON line of a rollout as one of ours."""
        self._print({"rollout": json.loads(line)})

    def end(self, claims: list[CheckedClaim], figures: dict[str, float]) -> None:
        """Print the verdict and the figures, in seconds."""
        self._print({"ok": all(c.held for c in claims), "claims": len(claims), "figures": figures})

    def _print(self, entry: dict[str, object]) -> None:
        print(json.dumps({"at": round(time.monotonic() - self._began, 3), **entry}), flush=True)  # noqa: T201
