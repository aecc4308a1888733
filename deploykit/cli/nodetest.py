"""`deploykit nodes --test`: try a selection on a node that is described by files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from deploykit.cli.options import F, print_json
from deploykit.cli.selecting import selection_from
from deploykit.cli.visible import visible

_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_OPTIONS: Final = (
    click.option("--test", is_flag=True, help="Ask nobody: return whether a node as below would match."),
    click.option("--identity", "test_identity", metavar="NAME", help="With --test: the node's name."),
    click.option("--facts", "test_facts", type=_FILE, metavar="FILE", help="With --test: its facts, JSON or YAML."),
    click.option("--classes", "test_classes", type=_FILE, metavar="FILE", help="With --test: its classes, one a line."),
)


def node_test_options(function: F) -> F:
    """Add `--test` and what describes the node to test."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def forbid_test_options(given: Mapping[str, object]) -> None:
    """Refuse what describes a node to test where none is tested.

    Raises:
        UsageError: naming the options.
    """
    from deploykit.errors import UsageError

    named = [f"--{name}" for name in ("identity", "facts", "classes") if given.get(f"test_{name}") is not None]
    if named:
        raise UsageError(f"{', '.join(named)} describe a node for --test", "add --test, or leave them out")


def run_test(given: Mapping[str, object], *, as_json: bool) -> int:
    """Print whether the selection matches the node, and return the exit code: 0 it does, 1 it does not.

    Args:
        given: what click hands on from `selection_options` and `node_test_options`.

    Raises:
        UsageError: the selection or a file is not what it should be.
    """
    from deploykit.errors import UsageError
    from deploykit.operations.nodetest import decide, read_node

    identity, facts, classes = (given.get(f"test_{name}") for name in ("identity", "facts", "classes"))
    if not isinstance(identity, str):
        raise UsageError("--test needs the name of the node", "--identity NAME")
    selection = selection_from(given)
    node = read_node(
        identity,
        facts if isinstance(facts, Path) else None,
        classes if isinstance(classes, Path) else None,
    )
    decision = decide(selection, node)
    if as_json:
        print_json(
            {
                "node": node.node,
                "matches": decision.matches,
                "term": decision.term,
                "holds": decision.holds,
                "found": decision.found,
            }
        )
    else:
        click.echo(visible(f"{node.node} {'matches' if decision.matches else 'does not match'}: {decision}"))
    return 0 if decision.matches else 1
