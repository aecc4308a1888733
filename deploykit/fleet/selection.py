"""Which nodes a command is for: everything that `-I -C -F -S --nodes --all --exclude --expect` say together.

Rules:

* `-I`: one of them must name the node. All others must hold, each of them.
* Choosing nobody in particular is an error; `everybody` says that all are meant.
* An exclusion is a selector in which a node's name counts as one of its classes: `--exclude web1` means the node, too.
* Nodes are known without asking where names alone decide: literal identities, or a list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import attrs

from deploykit.errors import InvalidName, SelectorError, UsageError
from deploykit.fleet.expressions import ClassTerm, Comparison, Expression, MatchDecision, Negation
from deploykit.fleet.facts import NodeFacts
from deploykit.fleet.patterns import Exactly, Pattern
from deploykit.fleet.selector import Selector, parse_comparison, parse_pattern
from deploykit.names import NodeName, parse_node_name

#: What a command says that names no node.
NOBODY_CHOSEN: Final = "no nodes are chosen"
_HOW: Final = "-I NODE, -C CLASS, -F FACT=VALUE, -S SELECTOR or --nodes FILE; --all for every node"


@attrs.frozen(slots=True)
class _Wanted:
    """The parts of a selection, read; `problems` has those that cannot be."""

    identities: tuple[Pattern, ...]
    terms: tuple[tuple[str, Expression], ...]
    exclude: tuple[tuple[str, Expression], ...]
    listed: frozenset[NodeName] | None
    problems: tuple[str, ...]


@attrs.frozen(kw_only=True, slots=True)
class Selection:
    """Which nodes are meant.

    Args:
        identities: names, globs or regular expressions; one of them must match.
        classes, facts, selects: as `-C`, `-F` and `-S` take them; all must hold.
        everybody: all nodes, without anything else that chooses.
        exclude: selectors of nodes that are left out.
        listed: only these nodes; None where no list was given.
        expect: how many nodes must match.
    """

    identities: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    selects: tuple[str, ...] = ()
    everybody: bool = False
    exclude: tuple[str, ...] = ()
    listed: tuple[NodeName, ...] | None = None
    expect: int | None = None
    _wanted: _Wanted = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_wanted", _read(self))

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong with it, a line each."""
        found = list(self._wanted.problems)
        chosen = self.identities or self.classes or self.facts or self.selects or self.listed is not None
        if self.everybody and chosen:
            found.append("--all means every node: leave it out, or leave out what chooses (--exclude may stay)")
        if not self.everybody and not chosen:
            found.append(f"{NOBODY_CHOSEN} ({_HOW})")
        if self.listed is not None and not self.listed:
            found.append("the list of nodes is empty")
        if self.expect is not None and self.expect < 0:
            found.append(f"--expect: expected a number of nodes, not {self.expect}")
        return tuple(found)

    def check(self) -> None:
        """Do nothing where it can be used.

        Raises:
            UsageError: with everything that is wrong.
        """
        if found := self.problems():
            raise UsageError(found[0] if len(found) == 1 else "the nodes are not well chosen", problems=found)

    def check_count(self, matched: int) -> None:
        """Do nothing where as many nodes matched as were expected.

        Raises:
            UsageError: more or fewer.
        """
        if self.expect is not None and matched != self.expect:
            nodes = "1 node" if matched == 1 else f"{matched} nodes"
            raise UsageError(f"{nodes} matched, and --expect is {self.expect}", "nothing was done")

    def matches(self, node: NodeFacts) -> bool:
        """Return whether a node is chosen.

        Raises:
            UsageError: the selection cannot be used, see `problems`.
        """
        self.check()
        wanted = self._wanted
        return (
            (wanted.listed is None or node.node in wanted.listed)
            and self._identified(node.node)
            and not any(_excludes(part, node) for _, part in wanted.exclude)
            and all(part.holds(node) for _, part in wanted.terms)
        )

    def decide(self, node: NodeFacts) -> MatchDecision:
        """Return whether a node is chosen, and what settled it. The first part that is false does.

        Raises:
            UsageError: the selection cannot be used, see `problems`.
        """
        self.check()
        decision = MatchDecision(matches=True, term="--all", holds=True)
        for part in self._parts():
            decision = part(node)
            if not decision.matches:
                break
        return decision

    @property
    def candidates(self) -> tuple[NodeName, ...] | None:
        """The only nodes that may match, by their names; None where any node may. Facts may still rule some out.

        Raises:
            UsageError: the selection cannot be used, see `problems`.
        """
        self.check()
        if self.listed is not None:
            return tuple(name for name in dict.fromkeys(self.listed) if self._identified(name))
        names = [NodeName(one.text) for one in self._wanted.identities if isinstance(one, Exactly)]
        if not names or len(names) < len(self._wanted.identities):
            return None
        return tuple(dict.fromkeys(names))

    @property
    def literal_nodes(self) -> tuple[NodeName, ...] | None:
        """The nodes that match, in the order given, where names alone decide; None where nodes must be asked.

        Raises:
            UsageError: the selection cannot be used, see `problems`.
        """
        names = self.candidates
        if names is None or self._wanted.terms:
            return None
        excluded = [part for _, part in self._wanted.exclude]
        if not all(_by_name_alone(part, names) for part in excluded):
            return None
        return tuple(name for name in names if not any(_excludes(part, NodeFacts(node=name)) for part in excluded))

    @property
    def needs_discovery(self) -> bool:
        """Whether nodes must be asked what they are before it is known which match."""
        return self.literal_nodes is None

    def _identified(self, name: NodeName) -> bool:
        return not self.identities or any(one.found_in(name) for one in self._wanted.identities)

    def _parts(self) -> Iterator[Callable[[NodeFacts], MatchDecision]]:
        """Yield what must be true, the cheapest first."""
        if self.listed is not None:
            yield self._decide_listed
        if self.identities:
            yield self._decide_identity
        for option, part in self._wanted.exclude:
            yield partial(_decide_excluded, option, part)
        for option, part in self._wanted.terms:
            yield partial(_decide_term, option, part)

    def _decide_listed(self, node: NodeFacts) -> MatchDecision:
        holds = self._wanted.listed is not None and node.node in self._wanted.listed
        return MatchDecision(matches=holds, term="--nodes", holds=holds, found=f"node is {node.node}")

    def _decide_identity(self, node: NodeFacts) -> MatchDecision:
        pairs = zip(self.identities, self._wanted.identities, strict=True)
        named = [text for text, one in pairs if one.found_in(node.node)]
        term = " ".join(f"-I {text}" for text in named[:1] or self.identities)
        return MatchDecision(matches=bool(named), term=term, holds=bool(named), found=f"node is {node.node}")


def _decide_term(option: str, part: Expression, node: NodeFacts) -> MatchDecision:
    decision = part.decide(node)
    return attrs.evolve(decision, term=f"{option} {decision.term}")


def _decide_excluded(option: str, part: Expression, node: NodeFacts) -> MatchDecision:
    decision = part.decide(_named_like_a_class(node))
    return attrs.evolve(decision, matches=not decision.matches, term=f"{option} {decision.term}")


def _excludes(part: Expression, node: NodeFacts) -> bool:
    return part.holds(_named_like_a_class(node))


def _named_like_a_class(node: NodeFacts) -> NodeFacts:
    return attrs.evolve(node, classes=(*node.classes, node.node))


def _by_name_alone(part: Expression, names: tuple[NodeName, ...]) -> bool:
    """Return whether names decide what an exclusion excludes: each term is one of them, or compares `node`."""
    if isinstance(part, Comparison):
        return part.name == "node"
    if isinstance(part, ClassTerm):
        return isinstance(part.pattern, Exactly) and part.pattern.text in names
    parts = (part.part,) if isinstance(part, Negation) else part.parts
    return all(_by_name_alone(one, names) for one in parts)


def _read(selection: Selection) -> _Wanted:
    problems: list[str] = []
    identities: list[Pattern] = []
    for text in selection.identities:
        try:
            identities.append(_identity(text))
        except (SelectorError, InvalidName) as error:
            problems.append(f"-I: {error}")
    terms = list(_each("-C", selection.classes, _class_term, problems))
    terms += _each("-F", selection.facts, parse_comparison, problems)
    terms += _each("-S", selection.selects, _expression, problems)
    exclude = tuple(_each("--exclude", selection.exclude, _expression, problems))
    listed = None if selection.listed is None else frozenset(selection.listed)
    return _Wanted(tuple(identities), tuple(terms), exclude, listed, tuple(problems))


def _each(
    option: str, texts: tuple[str, ...], parse: Callable[[str], Expression], problems: list[str]
) -> Iterator[tuple[str, Expression]]:
    for text in texts:
        try:
            yield option, parse(text)
        except SelectorError as error:
            problems.append(f"{option}: {error}")


def _class_term(text: str) -> Expression:
    return ClassTerm(parse_pattern(text))


def _expression(text: str) -> Expression:
    return Selector.parse(text).expression


def _identity(text: str) -> Pattern:
    """Return what `-I` takes: a node's name, a glob or a regular expression."""
    pattern = parse_pattern(text, "the name of a node")
    return Exactly(parse_node_name(pattern.text)) if isinstance(pattern, Exactly) else pattern
