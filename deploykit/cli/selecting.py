"""Options that choose nodes, the same for each command that takes several."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import click

from deploykit.cli.options import F

if TYPE_CHECKING:
    from deploykit.fleet.selection import Selection
    from deploykit.names import NodeName

_LIST: Final = click.Path(path_type=Path, dir_okay=False, allow_dash=True)
# fmt: off
#: Flags, the name under which click hands the value on, the rest of the option.
_OPTIONS: Final[tuple[tuple[tuple[str, ...], dict[str, Any]], ...]] = (
    (("-I", "--node", "chosen_nodes"),
     {"multiple": True, "metavar": "NAME", "help": "This node: its name, a glob or a /regex/. Any of several."}),
    (("-C", "--class", "chosen_classes"),
     {"multiple": True, "metavar": "CLASS", "help": "Nodes of this class: its name, a glob or a /regex/."}),
    (("-F", "--fact", "chosen_facts"),
     {"multiple": True, "metavar": "FACT=VALUE", "help": "Nodes with such a fact; also != < <= > >=."}),
    (("-S", "--select", "chosen_selects"),
     {"multiple": True, "metavar": "SELECTOR", "help": "Nodes for which this holds: 'nginx and env=live'."}),
    (("--nodes", "chosen_list"),
     {"type": _LIST, "metavar": "FILE|-", "help": "Only nodes of this list: one a line, or JSON."}),
    (("--all", "chosen_all"),
     {"is_flag": True, "help": "Every node."}),
    (("--exclude", "chosen_exclude"),
     {"multiple": True, "metavar": "SELECTOR", "help": "Leave these nodes out; a word alone is a name or a class."}),
    (("--expect", "chosen_count"),
     {"type": click.IntRange(min=0), "metavar": "N", "help": "Refuse unless exactly N nodes match."}),
)
# fmt: on


def selection_options(function: F) -> F:
    """Add the options that choose nodes; `selection_from` takes what they hand on."""
    for flags, rest in reversed(_OPTIONS):
        function = click.option(*flags, **rest)(function)
    return function


def selection_from(given: Mapping[str, object]) -> Selection:
    """Return the nodes that the options of `selection_options` choose.

    Args:
        given: what click hands on; other options in it are ignored.

    Raises:
        UsageError: they choose nobody, contradict each other, or hold what is no selector.
    """
    from deploykit.fleet.selection import Selection

    def texts(name: str) -> tuple[str, ...]:
        return cast("tuple[str, ...]", given.get(name) or ())

    listed = given.get("chosen_list")
    expect = given.get("chosen_count")
    selection = Selection(
        identities=texts("chosen_nodes"),
        classes=texts("chosen_classes"),
        facts=texts("chosen_facts"),
        selects=texts("chosen_selects"),
        everybody=bool(given.get("chosen_all")),
        exclude=texts("chosen_exclude"),
        listed=_read_list(listed) if isinstance(listed, Path) else None,
        expect=expect if isinstance(expect, int) else None,
    )
    selection.check()
    return selection


def _read_list(path: Path) -> tuple[NodeName, ...]:
    from deploykit.errors import UsageError
    from deploykit.fleet.nodelist import MAX_LIST, parse_node_list

    if str(path) == "-":
        return parse_node_list(sys.stdin.buffer.read(MAX_LIST + 1), "standard input")
    try:
        with path.open("rb") as file:
            body = file.read(MAX_LIST + 1)
    except OSError as error:
        raise UsageError(f"cannot read the list of nodes {path}: {error.strerror}") from None
    return parse_node_list(body, str(path))
