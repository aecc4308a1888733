"""The report of chaos runs: a table for people, the books kept where something is wrong."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import attrs

from tests.chaos.accounts import Accounts
from tests.chaos.options import Options, Outcome

_COLUMNS = (
    ("run", 22), ("seconds", 7), ("seed", 10), ("confirmed", 9), ("unknown", 7), ("received", 8), ("lost", 4),
    ("disorder", 8), ("swapped", 7), ("again", 6), ("twice", 5), ("kills", 5), ("faults", 6), ("wrong", 5),
)  # fmt: skip


def table(rows: Sequence[dict[str, object]]) -> str:
    """Return the rows under their headings.

    `unknown` are publishes without a receipt in time, `disorder` violations of order, `swapped` what a killed broker
    explains, `again` deliveries beyond the first, `twice` what was handled after it was done, `wrong` all violations.
    """
    lines = ["  ".join(f"{name:>{width}}" for name, width in _COLUMNS)]
    lines += ["  ".join(f"{row.get(name, '')!s:>{width}}" for name, width in _COLUMNS) for row in rows]
    return "\n".join(lines)


def row(outcome: Outcome, accounts: Accounts, options: Options) -> dict[str, object]:
    """Return one line of the table."""
    verdict = outcome.verdict
    outcomes = Counter(sent.outcome for sent in accounts.sent.values())
    figures = outcome.figures
    kills = sum(count for name, count in figures.items() if name.startswith("kill"))
    return {
        "run": outcome.scenario,
        "seconds": f"{options.seconds:g}",
        "seed": options.seed,
        "confirmed": outcomes["confirmed"],
        "unknown": outcomes["unknown"] + outcomes["under way"],
        "received": sum(len(receiver.first) for receiver in accounts.receivers.values()),
        "lost": len(verdict.lost),
        "disorder": len(verdict.out_of_order),
        "swapped": verdict.swapped_by_kill,
        "again": verdict.duplicates,
        "twice": len(verdict.handled_twice),
        "kills": kills,
        "faults": sum(figures.values()) - kills,
        "wrong": len(wrong(outcome)),
    }


def wrong(outcome: Outcome) -> list[str]:
    """Return every violation, those of the run as a whole first."""
    return [*outcome.violations, *outcome.verdict.violations]


def shown(outcome: Outcome) -> list[str]:
    """Return some of the violations of each kind."""
    verdict = outcome.verdict
    kinds = (verdict.lost, verdict.invented, verdict.altered, verdict.handled_twice, verdict.out_of_order)
    return [*outcome.violations, *(line for lines in kinds for line in lines[:3])]


def keep(outcome: Outcome, options: Options, line: dict[str, object], directory: Path) -> Path:
    """Write what is needed to understand and repeat a run beside its history; return the file."""
    path = directory / "report.json"
    asked = attrs.asdict(options, value_serializer=lambda _, __, v: sorted(v) if isinstance(v, frozenset) else v)
    report = {"options": asked, "table": line, "figures": outcome.figures, "violations": wrong(outcome)}
    path.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return path


def repeat(scenario: str, options: Options) -> str:
    """Return the command that runs the same schedule again."""
    without = "".join(f" --without {name}" for name in sorted(_all_features() - options.features))
    sabotage = f" --sabotage {options.sabotage}" if options.sabotage else ""
    how = f"--seconds {options.seconds:g} --seed {options.seed} --rate {options.rate:g} --settle {options.settle:g}"
    return f"nox -s chaos -- {scenario} {how}{without}{sabotage}"


def _all_features() -> frozenset[str]:
    return Options().features
