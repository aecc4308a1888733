"""A selector as a tree, and what it says of a node.

`str` of a tree is a selector's text again, with no more brackets than needed.
"""

from __future__ import annotations

from typing import Literal

import attrs

from deploykit.fleet.comparison import Ordering, equals, in_order
from deploykit.fleet.facts import NodeFacts, Scalar, text_of
from deploykit.fleet.patterns import Exactly, Pattern

Operator = Literal["=", "!="] | Ordering

_FEW = 5
_LONG = 60


@attrs.frozen(kw_only=True, slots=True)
class MatchDecision:
    """Whether a node matches, and why.

    Args:
        term: the smallest part of the selector that settled it.
        holds: whether that part itself is true; under a `not` it may differ from `matches`.
        found: what the node has to it, in words; empty where the part is made of several.
    """

    matches: bool
    term: str
    holds: bool
    found: str = ""

    def __str__(self) -> str:
        found = f": {self.found}" if self.found else ""
        return f"{self.term} is {'true' if self.holds else 'false'}{found}"


@attrs.frozen(slots=True)
class ClassTerm:
    """True where one of the node's classes is named."""

    pattern: Pattern

    def holds(self, node: NodeFacts) -> bool:
        """Return whether the node has such a class."""
        if isinstance(self.pattern, Exactly):
            return self.pattern.text in node.classes
        return any(map(self.pattern.found_in, node.classes))

    def decide(self, node: NodeFacts) -> MatchDecision:
        """Return whether it holds, and which class is meant."""
        named = [name for name in node.classes if self.pattern.found_in(name)]
        found = f"class {_listed(named)}" if named else f"none of {len(node.classes)} classes"
        return MatchDecision(matches=bool(named), term=str(self), holds=bool(named), found=found)

    def __str__(self) -> str:
        return self.pattern.text if isinstance(self.pattern, Exactly) else str(self.pattern)


@attrs.frozen(slots=True)
class Comparison:
    """True where the node has the fact, and one of its values compares so; with `!=`, where none equals."""

    name: str
    operator: Operator
    pattern: Pattern

    def holds(self, node: NodeFacts) -> bool:
        """Return whether the node's fact compares so; an absent one never does."""
        values = node.values(self.name)
        if values is None:
            return False
        if self.operator == "!=":
            return not any(map(self._equals, values))
        return any(map(self._compares, values))

    def decide(self, node: NodeFacts) -> MatchDecision:
        """Return whether it holds, and the fact's values."""
        values = node.values(self.name)
        found = f"no fact {self.name}" if values is None else f"{self.name} is {_listed(map(text_of, values))}"
        holds = self.holds(node)
        return MatchDecision(matches=holds, term=str(self), holds=holds, found=found)

    def _equals(self, value: Scalar) -> bool:
        if isinstance(self.pattern, Exactly):
            return equals(value, self.pattern.text)
        return self.pattern.found_in(text_of(value))

    def _compares(self, value: Scalar) -> bool:
        if self.operator == "=" or self.operator == "!=":  # noqa: PLR1714  # a type checker follows this
            return self._equals(value)
        return isinstance(self.pattern, Exactly) and in_order(value, self.operator, self.pattern.text)

    def __str__(self) -> str:
        value = str(self.pattern)
        return f"{self.name}{self.operator}{' ' if value.startswith('~') else ''}{value}"


@attrs.frozen(slots=True)
class Negation:
    """True where its part is not."""

    part: Expression

    def holds(self, node: NodeFacts) -> bool:
        """Return whether its part is false of the node."""
        return not self.part.holds(node)

    def decide(self, node: NodeFacts) -> MatchDecision:
        """Return the opposite of its part's decision, settled by the same term."""
        inner = self.part.decide(node)
        return attrs.evolve(inner, matches=not inner.matches)

    def __str__(self) -> str:
        several = isinstance(self.part, Conjunction | Disjunction)
        return f"not ({self.part})" if several else f"not {self.part}"


@attrs.frozen(slots=True)
class Conjunction:
    """True where all its parts are."""

    parts: tuple[Expression, ...]

    def holds(self, node: NodeFacts) -> bool:
        """Return whether all parts are true of the node."""
        return all(part.holds(node) for part in self.parts)

    def decide(self, node: NodeFacts) -> MatchDecision:
        """Return the decision of the first part that is false; the whole where none is."""
        for part in self.parts:
            if not (decision := part.decide(node)).matches:
                return decision
        return MatchDecision(matches=True, term=str(self), holds=True)

    def __str__(self) -> str:
        return " and ".join(
            f"({part})" if isinstance(part, Conjunction | Disjunction) else str(part) for part in self.parts
        )


@attrs.frozen(slots=True)
class Disjunction:
    """True where one of its parts is."""

    parts: tuple[Expression, ...]

    def holds(self, node: NodeFacts) -> bool:
        """Return whether a part is true of the node."""
        return any(part.holds(node) for part in self.parts)

    def decide(self, node: NodeFacts) -> MatchDecision:
        """Return the decision of the first part that is true; the whole where none is."""
        for part in self.parts:
            if (decision := part.decide(node)).matches:
                return decision
        return MatchDecision(matches=False, term=str(self), holds=False)

    def __str__(self) -> str:
        return " or ".join(f"({part})" if isinstance(part, Disjunction) else str(part) for part in self.parts)


Expression = ClassTerm | Comparison | Negation | Conjunction | Disjunction


def _listed(values: object) -> str:
    """Return the first values of many, each shortened."""
    texts = [one if len(one) <= _LONG else f"{one[: _LONG - 1]}…" for one in map(str, values)]  # type: ignore[call-overload]
    more = f" and {len(texts) - _FEW} more" if len(texts) > _FEW else ""
    return (", ".join(repr(text) for text in texts[:_FEW]) or "an empty list") + more
