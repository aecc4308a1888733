"""Return whether a selection would choose a node that has such a name, facts and classes; no bus is needed."""

from __future__ import annotations

from pathlib import Path

from deploykit.errors import UsageError
from deploykit.fleet.expressions import MatchDecision
from deploykit.fleet.facts import NodeFacts
from deploykit.fleet.factsfile import MAX_FILE, parse_classes, parse_facts
from deploykit.fleet.selection import Selection
from deploykit.names import parse_node_name


def read_node(identity: str, facts: Path | None, classes: Path | None) -> NodeFacts:
    """Return a node as selectors see it.

    Args:
        identity: its name.
        facts: a JSON or YAML file; None for no facts.
        classes: a file with a class in each line, or a JSON list; None for no classes.

    Raises:
        InvalidName: the identity is no node's name.
        UsageError: a file does not hold what it should, or cannot be read.
    """
    return NodeFacts(
        node=parse_node_name(identity),
        facts=parse_facts(_read(facts), facts.name) if facts is not None else {},
        classes=parse_classes(_read(classes), classes.name) if classes is not None else (),
    )


def decide(selection: Selection, node: NodeFacts) -> MatchDecision:
    """Return whether a selection chooses a node, and what settled it.

    Raises:
        UsageError: the selection cannot be used, or asks for what one node cannot answer.
    """
    if selection.expect is not None:
        raise UsageError("--expect counts nodes, and --test looks at one", "leave one of them out")
    return selection.decide(node)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
