"""What a process uses, seen from outside, every few seconds."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import attrs

from tests.soak.flatness import Finding, Quantity, judge

QUANTITIES: tuple[Quantity, ...] = ("rss", "files", "threads")


def used_by(pid: int) -> dict[Quantity, float]:
    """Return resident bytes, open descriptors and threads of a process.

    Raises:
        OSError: it has ended.
    """
    status = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
        if ":" in line
    )
    return {
        "rss": float(status["VmRSS"].split()[0]) * 1024,
        "files": float(len(os.listdir(f"/proc/{pid}/fd"))),  # noqa: PTH208 - names are enough
        "threads": float(status["Threads"]),
    }


@attrs.define(kw_only=True, slots=True)
class Series:
    """The measurements of one process."""

    name: str
    times: list[float] = attrs.field(factory=list)
    values: dict[Quantity, list[float]] = attrs.field(factory=lambda: {quantity: [] for quantity in QUANTITIES})

    def measure(self, pid: int) -> None:
        """Add what the process uses now."""
        used = used_by(pid)
        self.times.append(time.monotonic())
        for quantity, value in used.items():
            self.values[quantity].append(value)

    def findings(self) -> dict[Quantity, Finding]:
        """Judge each quantity."""
        return {quantity: judge(quantity, self.times, self.values[quantity]) for quantity in QUANTITIES}


def table(series: Sequence[Series]) -> str:
    """Return all findings as a table for people, in Markdown."""
    lines = [
        "| daemon | resident MiB, early -> late in the second half (most) | descriptors | threads | verdict |",
        "|---|---|---|---|---|",
    ]
    for each in series:
        found = each.findings()
        cells = [
            f"{found['rss'].early / 2**20:.1f} -> {found['rss'].late / 2**20:.1f} ({found['rss'].most / 2**20:.1f})",
            *(f"{found[q].early:.0f} -> {found[q].late:.0f} ({found[q].most:.0f})" for q in ("files", "threads")),
        ]
        grown = [quantity for quantity in QUANTITIES if not found[quantity].flat]
        lines.append(f"| {each.name} | {' | '.join(cells)} | {'grows: ' + ', '.join(grown) if grown else 'flat'} |")
    return "\n".join(lines)
