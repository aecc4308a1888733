"""Which nodes somebody means, and what those nodes say of a site. They are asked anew for every plan.

Rules:

* Nothing chosen is an error, never everybody. A name that nobody knows is an error that names it.
* Nodes that are silent, or do not have the site, are left out and named, and so are those beyond what was shown.
* A selector that matches nobody addresses nobody.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import attrs

from deploykit.bus import Bus
from deploykit.errors import ActionRefused, DeploykitError, SelectorError
from deploykit.fleet.plan import natural_order
from deploykit.fleet.selection import Selection
from deploykit.fleet.selector import Selector
from deploykit.messages import NodeDescribed, NodeDetail, SiteState
from deploykit.names import NodeName, SiteName, parse_node_name
from deploykit.operations.nodes import FoundNodes, find_nodes, shortened
from deploykit.settings.node import Settings
from deploykit.trust.check import Trust
from deploykit.trust.signature import BodySigner
from deploykit.web.actions.asked import NodesAsked
from deploykit.web.actions.shown import LeftOutNode

#: Seconds that silent nodes are waited for.
PATIENCE: Final = 8.0
#: Questions at once, and seconds that another one waits: nodes answer each key once a second, and keep four.
AT_ONCE: Final = 2
WAITING: Final = 15.0
#: Most nodes of one rollout: a mandate names no more, and no page shows more.
MOST_NODES: Final = 10_000
#: Operations of a site's history that a way back is explained from.
_HISTORY: Final = 20

#: Asks nodes, as `operations.nodes.find_nodes` does: selection, details, the site alone or None, operations to list.
NodesAsking = Callable[[Selection, Sequence[NodeDetail], SiteName | None, int], FoundNodes]


class KnownNodes(Protocol):
    """What is known of nodes without asking them."""

    def __call__(self, name: str, /) -> Sequence[str]:
        """Return the names of nodes that resemble one; the name itself, if it is known."""


@attrs.frozen(kw_only=True, slots=True)
class ChosenNodes:
    """The nodes that a rollout is for, as they described themselves.

    Args:
        nodes: that have the site, in people's order.
        states: the site on each of them.
        left_out: who was meant and is not among them, and why.
        notes: lines for the person.
    """

    nodes: tuple[NodeDescribed, ...]
    states: dict[NodeName, SiteState]
    left_out: tuple[LeftOutNode, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[NodeName, ...]:
        """The names of the nodes."""
        return tuple(node.node for node in self.nodes)


def asking_nodes(
    settings: Settings, bus: Bus, key: Callable[[], BodySigner], trust: Callable[[], Trust], patience: float = PATIENCE
) -> NodesAsking:
    """Return what asks nodes over a bus, for a few people at once: nodes keep few questions of one key."""
    seats = threading.BoundedSemaphore(AT_ONCE)

    def ask(selection: Selection, details: Sequence[NodeDetail], site: SiteName | None, history: int) -> FoundNodes:
        if not seats.acquire(timeout=WAITING):
            raise ActionRefused("others ask the nodes at this moment", "try again in a few seconds", status=503)
        try:
            return find_nodes(
                settings,
                bus,
                selection,
                details=details,
                site=site,
                history_limit=history,
                timeout=patience,
                key=key(),
                trust=trust(),
            )
        finally:
            seats.release()

    return ask


def selection_of(asked: NodesAsked) -> Selection:
    """Return the selection that somebody typed. Pure.

    Raises:
        ActionRefused: 422, naming the field: `select`, `nodes` or `exactly`.
    """
    problems: dict[str, str] = {}
    select = asked.select.strip()
    names = tuple(name.strip() for name in asked.nodes if name.strip())
    exactly = tuple(dict.fromkeys(name.strip() for name in asked.exactly if name.strip()))
    if select:
        try:
            Selector.parse(select)
        except SelectorError as error:
            problems["select"] = str(error)
    if asked.everybody and (select or names):
        problems["everybody"] = "all nodes are chosen, and some of them too: leave one of both out"
    if not (select or names or exactly or asked.everybody):
        problems["nodes"] = "no nodes are chosen: name some, give a selector, or choose all that have the site"
    if len(exactly) > MOST_NODES or len(names) > MOST_NODES:
        problems["nodes"] = f"a rollout is for at most {MOST_NODES} nodes: choose fewer, in several rollouts"
    listed: list[NodeName] = []
    for name in exactly:
        try:
            listed.append(parse_node_name(name))
        except DeploykitError as error:
            problems["exactly"] = str(error)
    if not problems:
        selection = Selection(
            identities=names,
            selects=(select,) if select else (),
            everybody=asked.everybody and not listed,
            listed=tuple(listed) or None,
        )
        found = selection.problems()
        if not found:
            return selection
        problems["nodes"] = "; ".join(found)
    raise ActionRefused("; ".join(problems.values()), "nothing was done", status=422, **problems)


def choose_nodes(
    asked: NodesAsked, site: SiteName, ask: NodesAsking, known: KnownNodes, *, history: bool = False
) -> ChosenNodes:
    """Ask nodes, and return those that a rollout of a site is for.

    Args:
        asked: as typed.
        site: the site.
        ask: asks nodes.
        known: which nodes are known.
        history: what was done to the site is wanted, too.

    Raises:
        ActionRefused: 422: they are not well chosen, one of them is unknown, or nobody is left. It names the field
            `site`, too, where nodes answered and none of them has the site.
        BusError, PolicyRefused, KeyFileError: as `find_nodes`.
    """
    selection = selection_of(asked)
    details: tuple[NodeDetail, ...] = ("sites", "history") if history else ("sites",)
    alone = None if selection.needs_discovery else site
    found = ask(selection, details, alone, _HISTORY)
    heard = {node.node for node in (*found.nodes, *found.strangers)}
    _require_known((name for name in found.silent if name not in heard), known)
    states = {node.node: state for node in found.nodes for state in node.sites if state.site == site}
    chosen = sorted((node for node in found.nodes if node.node in states), key=lambda node: natural_order(node.node))
    # Where nodes are named and nothing else chooses, whoever answers besides, for others asked, was never meant.
    unexpected = found.unexpected if asked.everybody or asked.select or asked.nodes else ()
    left_out = [
        *(LeftOutNode(node=node, why=_silence(found, node)) for node in found.silent),
        *(LeftOutNode(node=n.node, why=f"it has no site {site}") for n in found.nodes if n.node not in states),
        *(LeftOutNode(node=node, why="it was not there when the plan was shown") for node in unexpected),
    ]
    if not asked.nodes and not asked.exactly:  # of a selector, nodes without the site were never meant
        left_out = [each for each in left_out if each.node in found.silent or each.node in set(unexpected)]
    if not chosen:
        raise _nobody(found, site, left_out)
    if len(chosen) > MOST_NODES:
        problem = f"{len(chosen)} nodes match, and a rollout is for at most {MOST_NODES}"
        raise ActionRefused(problem, "choose fewer, in several rollouts", status=422, nodes=problem)
    notes = [note for note in found.notes if "was not believed" in note or "answer under the name" in note]
    if found.answered >= 1 and len(chosen) == 1 and asked.everybody:
        notes.append("one node alone has the site: there is no canary before it")
    return ChosenNodes(nodes=tuple(chosen), states=states, left_out=tuple(left_out), notes=tuple(notes))


def _silence(found: FoundNodes, node: NodeName) -> str:
    if node in found.doubts:
        return f"its answer was not believed: {'; '.join(found.doubts[node][:2])}"
    return "it did not answer: is its agent running?"


def _require_known(silent: Iterable[NodeName], known: KnownNodes) -> None:
    for name in silent:
        alike = known(name)
        if name in alike:
            continue
        close = difflib.get_close_matches(name, alike, 1, 0.6)
        remedy = f"did you mean {close[0]}?" if close else "see the list of nodes"
        problem = f"there is no node {name}: it did not answer, and was never heard"
        raise ActionRefused(problem, remedy, status=422, nodes=f"{problem} ({remedy})")


def _nobody(found: FoundNodes, site: SiteName, left_out: Sequence[LeftOutNode]) -> ActionRefused:
    without = [node.node for node in found.nodes]
    if without:
        problem = f"no node that matches has site {site}: {shortened(without)}"
        return ActionRefused(problem, "nobody was addressed", status=422, nodes=problem, site=problem)
    if found.answered:
        problem = f"no node matches: {found.answered} answered"
    elif left_out:
        problem = f"none of the nodes answered: {shortened([each.node for each in left_out])}"
    else:
        problem = "no node answered: do agents run, and do they grant node.queried to the console's key?"
    return ActionRefused(problem, "nobody was addressed", status=422, nodes=problem)


__all__ = [
    "MOST_NODES",
    "PATIENCE",
    "ChosenNodes",
    "KnownNodes",
    "NodesAsking",
    "asking_nodes",
    "choose_nodes",
    "selection_of",
]
