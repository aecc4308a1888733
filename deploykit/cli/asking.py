"""What commands that ask the fleet have in common: options, the connection, and how they print what they found."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from deploykit.cli.options import F, Seconds, config_option, load
from deploykit.cli.selecting import selection_from
from deploykit.cli.signing import key_options
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.bus import Bus
    from deploykit.fleet.selection import Selection
    from deploykit.messages import NodeDescribed
    from deploykit.operations.keychoice import KeyChoice
    from deploykit.operations.nodes import FoundNodes
    from deploykit.settings.node import Settings
    from deploykit.trust.check import Trust
    from deploykit.trust.signature import BodySigner

#: Options of `selection_options` that choose; without any of them all nodes are meant, where nothing is changed.
CHOOSING: Final = ("chosen_nodes", "chosen_classes", "chosen_facts", "chosen_selects", "chosen_list", "chosen_all")
#: Most lines of notes that are printed.
_MOST_NOTES: Final = 20


def asking_options(function: F) -> F:
    """Add `--discovery-timeout`, `--key`, `--passphrase-file` and `--config`, handed on as `discovery_timeout`,
    `key: KeyChoice` and `config`."""
    function = click.option(
        "--discovery-timeout",
        default=10.0,
        show_default=True,
        type=Seconds(0.1),
        help="Seconds to wait for the first answer, or for all nodes that are named.",
    )(function)
    function = key_options(help="Sign with this key instead; KEY.pub: an ssh-agent holds it.")(function)
    return config_option(function)


def chooses(given: Mapping[str, object]) -> bool:
    """Return whether any option chooses nodes."""
    return any(given.get(name) for name in CHOOSING)


def selection_or_all(given: Mapping[str, object]) -> Selection:
    """Return the nodes that options choose; all of them where none does. For commands that only look.

    Raises:
        UsageError: they contradict each other, or hold what is no selector.
    """
    return selection_from(given if chooses(given) else {**given, "chosen_all": True})


@contextmanager
def asking(config: Path | None, key: KeyChoice) -> Iterator[tuple[Settings, Bus, BodySigner, Trust]]:
    """Yield what it takes to ask nodes: the settings, a connected bus, the key and whose answers to believe.

    Raises:
        PolicyRefused: there is no key, or no answer could be believed.
        KeyFileError: a key file cannot be used.
        ConnectError: no broker can be reached.
    """
    from deploykit.operations.deploy import connected_bus, load_report_trust, signing_key

    settings = load(config)
    signer, trust = signing_key(settings, key), load_report_trust(settings)
    with connected_bus(settings) as bus:
        yield settings, bus, signer, trust


@contextmanager
def counting() -> Iterator[Callable[[NodeDescribed], None]]:
    """Yield what is to be called with each node that answers; on a terminal it shows how many did."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    names = set()
    with Console(stderr=True).status("asking the nodes") as line:

        def heard(described: NodeDescribed) -> None:
            names.add(described.node)
            line.update(f"{len(names)} answered")

        yield heard


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their heads: a table on a terminal, else columns with two blanks between them."""
    shown = [[visible(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*head, box=None, pad_edge=False)
        for row in shown:
            table.add_row(*(Text(cell) for cell in row))
        Console().print(table)
        return
    lines = [[cell.upper() for cell in head], *([cell or "-" for cell in row] for row in shown)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_notes(notes: Sequence[str]) -> None:
    """Print what a person should know, a line each, to standard error."""
    from deploykit.cli import print_error

    for note in notes[:_MOST_NOTES]:
        print_error(note)
    if len(notes) > _MOST_NOTES:
        print_error(f"{len(notes) - _MOST_NOTES} more notes: see --json")


def found_json(found: FoundNodes) -> dict[str, object]:
    """Return who answered and who did not, as every command that asks prints it with `--json`."""
    return {
        "answered": found.answered,
        "silent": list(found.silent),
        "unexpected": list(found.unexpected),
        "doubts": {node: list(reasons) for node, reasons in found.doubts.items()},
        "twins": {
            node: [{"instance": agent.instance, "host": agent.host} for agent in agents]
            for node, agents in found.twins.items()
        },
    }
