"""The forms of a deploy and of a rollback: what was typed, as a link, and as what is asked of the console. Pure.

Rules:

* Every field is one text: a field that stands twice counts as absent. What is typed is cut nowhere, but refused.
* Nodes are chosen by `who`: `all`, `list` or `select`. Without it nothing is chosen, and nothing is planned.
* A link holds what differs from an empty form; the same link shows the same plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from deploykit.web.actions.asked import DeployAsked, NodesAsked, OptionsAsked, RollbackAsked

#: Options of a rollout, each under the name of its field.
OPTIONS: Final = (
    *("first", "first_nodes", "batch", "max_failures", "quorum", "pause", "on_failure", "timeout", "order"),
)
#: What else is folded away with them.
RARE: Final = (*OPTIONS, "commit", "not_before", "not_after", "approval", "without_build", "override_lock")
#: All fields of the forms, but for the boxes of single nodes.
FIELDS: Final = ("ref", "typed", "to", "who", "nodes", "select", "reason", *RARE)
#: A box that chooses one node has this before the node's name.
BOX: Final = "on:"
#: Most boxes of nodes: where a site is on more nodes, their names are typed.
MOST_BOXES: Final = 20
#: Characters of a field; of the names of nodes.
_MOST: Final = 1100
_MOST_NODES: Final = 60_000
_BETWEEN: Final = re.compile(r"[\s,]+")


@attrs.frozen(kw_only=True, slots=True)
class TypedRollout:
    """What somebody typed into one of the forms.

    Args:
        site: from the address.
        values: by field; nothing that is empty.
        problems: what is wrong with it before anybody is asked, by field.
    """

    site: str
    values: Mapping[str, str] = attrs.field(factory=dict, eq=dict, hash=False)
    problems: Mapping[str, str] = attrs.field(factory=dict, eq=dict, hash=False)

    def get(self, name: str, missing: str = "") -> str:
        """Return what stands in a field."""
        return self.values.get(name, missing)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names or patterns of nodes that were typed or ticked."""
        return words_of(self.get("nodes"))

    @property
    def chooses(self) -> bool:
        """Whether somebody has said which nodes are meant: else there is nothing to plan."""
        return bool(self.get("who"))

    @property
    def opens_options(self) -> bool:
        """Whether something is typed into what is folded away."""
        return any(self.get(name) for name in RARE)

    def chosen(self) -> NodesAsked:
        """Return the nodes that are meant; none where `who` is not understood."""
        match self.get("who"):
            case "all":
                return NodesAsked(everybody=True)
            case "list":
                return NodesAsked(nodes=self.nodes)
            case "select":
                return NodesAsked(select=self.get("select"))
        return NodesAsked()

    def options(self) -> OptionsAsked:
        """Return how the rollout shall go."""
        texts = {name: self.get(name) for name in OPTIONS if name not in ("first_nodes", "batch")}
        return OptionsAsked(**texts, first_nodes=words_of(self.get("first_nodes")), batch=words_of(self.get("batch")))

    def deploy(self, plan: str = "") -> DeployAsked:
        """Return the deploy that is asked for, with the digest of the plan that was shown."""
        return DeployAsked(
            site=self.site,
            ref=self.get("typed") or self.get("ref"),
            commit=self.get("commit"),
            chosen=self.chosen(),
            options=self.options(),
            reason=self.get("reason"),
            without_build=bool(self.get("without_build")),
            override_lock=self.get("override_lock"),
            approval=bool(self.get("approval")),
            not_before=self.get("not_before"),
            not_after=self.get("not_after"),
            plan=plan,
        )

    def rollback(self, plan: str = "") -> RollbackAsked:
        """Return the rollback that is asked for, with the digest of the plan that was shown."""
        return RollbackAsked(
            site=self.site,
            to=self.get("typed") or self.get("to"),
            commit=self.get("commit"),
            chosen=self.chosen(),
            options=self.options(),
            reason=self.get("reason"),
            override_lock=self.get("override_lock"),
            approval=bool(self.get("approval")),
            not_before=self.get("not_before"),
            not_after=self.get("not_after"),
            plan=plan,
        )


def typed_of(site: str, given: Mapping[str, str]) -> TypedRollout:
    """Return what was typed, from a form's fields or a link's query.

    >>> typed = typed_of("shop", {"who": "list", "on:web-1": "1", "nodes": "web-3, web-4", "x": "y"})
    >>> typed.nodes
    ('web-1', 'web-3', 'web-4')
    """
    values = {name: given.get(name, "").strip() for name in FIELDS}
    ticked = [name.removeprefix(BOX) for name, value in given.items() if name.startswith(BOX) and value]
    values["nodes"] = " ".join(dict.fromkeys((*ticked, *words_of(values["nodes"]))))
    problems = {
        name: f"longer than {most} characters"
        for name, value in values.items()
        if len(value) > (most := _MOST_NODES if name == "nodes" else _MOST)
    }
    return TypedRollout(site=site, values={name: value for name, value in values.items() if value}, problems=problems)


def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a field that takes several, set apart by blanks, commas or lines."""
    return tuple(word for word in _BETWEEN.split(text) if word)


def boxes_of(nodes: Iterable[str]) -> tuple[str, ...]:
    """Return the nodes for which the form has a box each; none where there are too many."""
    found = tuple(nodes)
    return found if len(found) <= MOST_BOXES else ()


__all__ = [
    "BOX",
    "FIELDS",
    "MOST_BOXES",
    "OPTIONS",
    "RARE",
    "TypedRollout",
    "boxes_of",
    "typed_of",
    "words_of",
]
