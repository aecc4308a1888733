"""What a rollout is going to do, decided before anything is sent: the order, the canaries, the batches. Pure.

Rules:

* The plan is made once and kept in the journal: a rollout that is resumed elsewhere has the same order and batches.
* Canaries come first; a batch has at most 1,000 nodes; the last batch size repeats.
* `rollback` has a target for each node: what it had before. A node without one is not in the plan.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final

import attrs

from deploykit.errors import MessageError, UsageError
from deploykit.fleet.options import MAX_BATCH, Amount, RolloutOptions
from deploykit.messages.base import new_id
from deploykit.messages.rollout import RolloutKind
from deploykit.messages.site import SitePart, Versioned, check_parts, id_of, named
from deploykit.names import NodeName, ObjectId, RefName, SiteName

__all__ = ["Amount", "Plan", "RolloutOptions", "Target", "make_plan", "natural_order"]

_DIGITS = re.compile(r"([0-9]+)").split
_DEFAULTS: Final = RolloutOptions()


def _id_of_parts(target: Target) -> ObjectId:
    if not target.parts:
        raise MessageError("commit: is missing, and there are no parts")
    return id_of(target.parts)


@attrs.frozen(kw_only=True, slots=True)
class Target:
    """What is to be live on a node, or is: a commit and the ref that names it, or the parts of several repositories.

    Args:
        ref: None with `parts`.
        parts: of each repository, in the order of their names.
        commit: the id of the parts where there are some; it is made from them.
    """

    ref: RefName | None = None
    parts: tuple[SitePart, ...] = attrs.field(default=(), validator=check_parts)
    commit: ObjectId = attrs.field(default=attrs.Factory(_id_of_parts, takes_self=True))

    def __attrs_post_init__(self) -> None:
        if self.ref is None and not self.parts:
            raise MessageError("ref: is missing, and there are no parts")

    @classmethod
    def of(cls, record: Versioned | None) -> Target | None:
        """Return the version that a record names; None where it names none, or one without a ref."""
        if record is None or record.commit is None or not (record.ref or record.parts):
            return None
        parts = tuple(SitePart(repo=part.repo, ref=part.ref, commit=part.commit) for part in record.parts)
        return cls(ref=record.ref, commit=record.commit, parts=parts)

    @property
    def name(self) -> str:
        """The refs, for people: `v1.2`; of several repositories `v3+v7`."""
        return named(self.ref, None, parts=self.parts)


@attrs.frozen(kw_only=True, slots=True)
class Plan:
    """A rollout, decided.

    Args:
        rollout: its id; every command carries it.
        kind: `deploy` puts a target live, `rollback` goes back to each node's own.
        nodes: each once, in the order in which they are asked: canaries, then batches.
        targets: what each node gets.
        canary: the nodes that are activated first; may be empty.
        batches: the other nodes.
        requested_by: who wanted it, in words for a person.
        correlation_id: the same from a push to its deploys.
    """

    rollout: str
    kind: RolloutKind
    site: SiteName
    nodes: tuple[NodeName, ...]
    targets: Mapping[NodeName, Target] = attrs.field(eq=dict, hash=False)
    canary: tuple[NodeName, ...] = ()
    batches: tuple[tuple[NodeName, ...], ...] = ()
    options: RolloutOptions = _DEFAULTS
    requested_by: str = ""
    correlation_id: str = ""

    @property
    def stages(self) -> tuple[tuple[NodeName, ...], ...]:
        """The canaries, where there are any, and the batches."""
        return (self.canary, *self.batches) if self.canary else self.batches

    @property
    def releases(self) -> tuple[Target, ...]:
        """The different targets, in the order of the nodes that get them."""
        return tuple(dict.fromkeys(self.targets[node] for node in self.nodes if node in self.targets))

    @property
    def one_phase(self) -> bool:
        """Return whether nodes are asked once: to go back, or, where there is but one node, to deploy."""
        return self.kind == "rollback" or len(self.nodes) == 1

    def problems(self) -> tuple[str, ...]:
        """Return what does not hold together, one line each; for plans that were read from a file."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        yield from self.options.problems()
        if not self.nodes:
            yield "nodes: expected at least one"
        if self.options.quorum is not None and self.options.quorum.of(len(self.nodes)) > len(self.nodes):
            yield f"quorum: expected at most {len(self.nodes)}, the number of nodes"
        if len(set(self.nodes)) != len(self.nodes):
            yield "nodes: one is named twice"
        if self.nodes != tuple(chain(*self.stages)) or not all(self.batches):
            yield "nodes: not the canaries and the batches in their order"
        if any(len(batch) > MAX_BATCH for batch in self.batches):
            yield f"batches: expected at most {MAX_BATCH} nodes in each"
        if self.targets.keys() != set(self.nodes):
            yield "targets: expected one for each node"
        if self.kind == "deploy" and len(self.releases) > 1:
            yield "targets: a deploy has one release for all nodes"
        if self.kind == "rollback" and self.options.on_failure == "rollback":
            yield "on-failure: a rollback is not taken back; expected stop or continue"


def make_plan(
    *,
    site: SiteName,
    nodes: Iterable[NodeName],
    target: Target | Mapping[NodeName, Target],
    kind: RolloutKind = "deploy",
    options: RolloutOptions = _DEFAULTS,
    rollout: str | None = None,
    requested_by: str = "",
    correlation_id: str = "",
) -> Plan:
    """Return the plan of a rollout.

    Args:
        site: the site's name.
        nodes: in any order; each counts once.
        target: what goes live on all nodes, or on each. A node without one is not in the plan.
        kind: `rollback` for going back to what each node had.
        options: what the operator chose.
        rollout: its id; a new one where it is None.
        requested_by: who wants it, in words for a person.
        correlation_id: of the push that it follows, if known.

    Raises:
        UsageError: there is no node, an option is wrong, or a canary is not among the nodes.
    """
    if problems := options.problems():
        raise _not_a_rollout(problems)
    if options.order == "random" and options.seed is None:
        options = attrs.evolve(options, seed=secrets.randbelow(2**31))
    chosen = dict.fromkeys(nodes)
    targets = dict.fromkeys(chosen, target) if isinstance(target, Target) else target
    ordered = _in_order((node for node in chosen if node in targets), options)
    canary = _canaries(ordered, options)
    plan = Plan(
        rollout=rollout or new_id(),
        kind=kind,
        site=site,
        nodes=(*canary, *(node for node in ordered if node not in set(canary))),
        targets={node: targets[node] for node in ordered},
        canary=canary,
        batches=(),
        options=options,
        requested_by=requested_by,
        correlation_id=correlation_id,
    )
    rest = plan.nodes[len(canary) :]
    plan = attrs.evolve(plan, batches=tuple(_batches(rest, len(ordered), options.batch)))
    if problems := plan.problems():
        raise _not_a_rollout(problems)
    return plan


def _not_a_rollout(problems: tuple[str, ...]) -> UsageError:
    return UsageError(f"not a rollout: {'; '.join(problems)}", problems=problems)


def natural_order(node: str) -> tuple[tuple[str | int, ...], str]:
    """Return the key that sorts names as people do.

    >>> sorted(["web10", "web2", "db"], key=natural_order)
    ['db', 'web2', 'web10']
    """
    parts = _DIGITS(node)
    return tuple(int(part) if at % 2 else part for at, part in enumerate(parts)), node


def _in_order(nodes: Iterable[NodeName], options: RolloutOptions) -> tuple[NodeName, ...]:
    """Sort by name, or by a digest of seed and name: the same on every machine and version of Python."""
    if options.order == "random":
        return tuple(sorted(nodes, key=lambda node: hashlib.sha256(f"{options.seed}:{node}".encode()).digest()))
    return tuple(sorted(nodes, key=natural_order))


def _canaries(ordered: Sequence[NodeName], options: RolloutOptions) -> tuple[NodeName, ...]:
    if options.first_nodes is not None:
        absent = sorted(options.first_nodes.difference(ordered), key=natural_order)
        if absent:
            shown = ", ".join(absent[:5]) + (" …" if len(absent) > 5 else "")
            raise UsageError(f"not among the chosen nodes: canary {shown}", "choose canaries from the nodes chosen")
        return tuple(node for node in ordered if node in options.first_nodes)
    if options.first is None:
        return tuple(ordered[:1]) if len(ordered) > 1 else ()
    return tuple(ordered[: options.first.of(len(ordered))])


def _batches(rest: Sequence[NodeName], total: int, sizes: Sequence[Amount]) -> Iterator[tuple[NodeName, ...]]:
    """Cut the nodes after the canaries into batches; percentages are of all nodes, canaries included."""
    steps = [min(amount.of(total), MAX_BATCH) for amount in sizes]
    start = index = 0
    while start < len(rest):
        size = steps[min(index, len(steps) - 1)]
        yield tuple(rest[start : start + size])
        start, index = start + size, index + 1
