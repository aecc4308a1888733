"""Run chaos against the bus and the relay, and say what the books say; exit 1 on a violation.

    nox -s chaos                                    every run, a minute each
    nox -s chaos -- bus-rabbitmq --seconds 600      one of them, for longer
    nox -s chaos -- relay-embedded --seed 7         a schedule again

What a seed fixes is the schedule of sends and faults; what brokers and the kernel do in time is not.
"""

from __future__ import annotations

import argparse
import logging
import secrets
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.accounts import Accounts
from tests.chaos.busrun import BusRun
from tests.chaos.options import FEATURES, SABOTAGES, Options, Outcome
from tests.chaos.relayrun import RelayRun
from tests.chaos.targets import KINDS, target

SCENARIOS = (
    *(f"bus-{kind}" for kind in KINDS),
    "bus-rabbitmq-tls",
    "bus-activemq-tls",
    *(f"relay-{kind}" for kind in KINDS if kind != "generic"),
)


def run(scenario: str, options: Options, directory: Path) -> tuple[Outcome, dict[str, object]]:
    """Run one scenario in `directory`, which is kept as it is; return what came of it, and its line of the table."""
    what, kind, *tls = scenario.split("-")
    log = logging.FileHandler(directory / "log")
    logging.getLogger().addHandler(log)
    make = BusRun if what == "bus" else RelayRun
    try:
        with (
            Accounts(directory / "history.jsonl") as accounts,
            target(kind, directory, tls=bool(tls)) as broker,
            make(broker, options, accounts, directory) as chaos,
        ):
            outcome = chaos.run(scenario)
            line = report.row(outcome, accounts, options)
            if report.wrong(outcome):
                (directory / "broker.log").write_text(broker.log_tail(), encoding="utf-8")
    finally:
        logging.getLogger().removeHandler(log)
        log.close()
    report.keep(outcome, options, line, directory)
    return outcome, line


def main(argv: list[str] | None = None) -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenarios", nargs="*", metavar="RUN", help=f"one of {', '.join(SCENARIOS)} (default: all)")
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long things are broken (default 60)")
    parser.add_argument("--seed", type=int, help="of the schedule (default: a new one)")
    parser.add_argument("--rate", type=float, default=100.0, help="messages a second of each writer (default 100)")
    parser.add_argument("--settle", type=float, default=60.0, help="patience with what is missing at the end")
    parser.add_argument("--without", action="append", default=[], choices=FEATURES, help="leave something out")
    parser.add_argument("--sabotage", choices=SABOTAGES, default="", help="break the run itself: the books must notice")
    parser.add_argument("--books", type=Path, help="where to keep the books of a run that went wrong")
    asked = parser.parse_args(argv)
    if unknown := set(asked.scenarios) - set(SCENARIOS):
        parser.error(f"no such run: {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    options = Options(
        seconds=asked.seconds,
        seed=asked.seed if asked.seed is not None else secrets.randbelow(10**6),
        rate=asked.rate,
        settle=asked.settle,
        features=frozenset(FEATURES) - set(asked.without),
        sabotage=asked.sabotage,
    )
    rows, failed = [], 0
    for scenario in asked.scenarios or SCENARIOS:
        line, well = _run_and_tell(scenario, options, asked.books)
        rows.append(line)
        failed += not well
    print(f"\n{report.table(rows)}")
    return 1 if failed else 0


def _run_and_tell(scenario: str, options: Options, books: Path | None) -> tuple[dict[str, object], bool]:
    """Run one scenario, print what is wrong, and keep the books then; return its line, and whether all is well."""
    # Not below `books`: the users of a spool may not get there.
    directory = Path(tempfile.mkdtemp(prefix=f"deploykit-chaos-{scenario}-"))
    directory.chmod(0o711)
    print(f"{scenario}, seed {options.seed} ...", flush=True)
    line: dict[str, object] = {"run": scenario, "seed": options.seed, "wrong": "failed"}
    problems: list[str] = []
    try:
        outcome, line = run(scenario, options, directory)
        problems = report.shown(outcome)
        print(f"  {', '.join(f'{name} {count}' for name, count in sorted(outcome.figures.items()))}")
    except (pytest.skip.Exception, pytest.fail.Exception) as error:
        problems, line = [str(error)], line | {"wrong": "missing"}
    except Exception as error:
        traceback.print_exc()
        problems = [f"the run itself failed: {type(error).__name__}: {error}"]
    if not problems:
        shutil.rmtree(directory)
        return line, True
    if books is not None:
        books.mkdir(parents=True, exist_ok=True)
        directory = Path(shutil.move(directory, books))
    for problem in problems:
        print(f"  WRONG: {problem}")
    print(f"  {line['wrong']} in all; books: {directory}\n  again: {report.repeat(scenario, options)}", flush=True)
    return line, False


if __name__ == "__main__":
    sys.exit(main())
