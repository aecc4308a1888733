"""What a selector sees of a node: its name, classes, facts, sites and version.

Rules for a fact's name:

* `node`, `site` and `version` are not facts of the node but what deploykit knows; a fact of that name is `facts.site`.
* A name is looked up as it stands; where there is no such fact, as a path into maps and lists: `os.name`, `roles.0`.
* A list stands for its elements, a map for its keys.
* A fact that is null is absent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, TypeGuard

import attrs

from deploykit.messages import NodeDescribed
from deploykit.messages.base import NOTHING
from deploykit.names import NodeName

#: One value to compare with.
Scalar = str | int | float | bool

#: What is known beside the facts, by the name that selectors use.
PSEUDO_FACTS: Final = ("node", "site", "version")
#: Integers beyond it are no value: writing them out takes time that grows with the square of their length.
_HUGE: Final = 10**300


@attrs.frozen(kw_only=True, slots=True)
class NodeFacts:
    """A node, as selectors see it.

    Args:
        classes: what configuration management says the node is.
        facts: names and values, flat or nested.
        sites: the sites that the node has.
        version: of deploykit there; empty where unknown.
    """

    node: NodeName
    classes: tuple[str, ...] = ()
    facts: Mapping[str, object] = attrs.field(default=NOTHING, eq=dict, hash=False)
    sites: tuple[str, ...] = ()
    version: str = ""

    @classmethod
    def of_described(cls, described: NodeDescribed) -> NodeFacts:
        """Return what a node told about itself."""
        return cls(
            node=described.node,
            classes=described.classes,
            facts=described.facts,
            sites=tuple(site.site for site in described.sites),
            version=described.version,
        )

    def values(self, name: str) -> tuple[Scalar, ...] | None:
        """Return the values that a fact's name stands for, none where its list is empty; None where it is absent."""
        match name:
            case "node":
                return (self.node,)
            case "site":
                return self.sites or None
            case "version":
                return (self.version,) if self.version else None
        found = _look_up(self.facts, name)
        if found is None and name.startswith("facts."):
            found = _look_up(self.facts, name.removeprefix("facts."))
        return None if found is None else _scalars(found)


def _look_up(facts: Mapping[str, object], name: str) -> object:
    """Return a fact by its name or path; None where it is absent."""
    if (found := facts.get(name)) is not None:
        return found
    parts = name.split(".")
    for at in range(len(parts) - 1, 0, -1):  # facts may be flat down to some level: `os.release` with a map below
        if (top := facts.get(".".join(parts[:at]))) is not None and (found := _descend(top, parts[at:])) is not None:
            return found
    return None


def _descend(value: object, path: list[str]) -> object:
    for part in path:
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list | tuple) and part.isascii() and part.isdigit() and len(part) < len("10000"):
            value = value[int(part)] if int(part) < len(value) else None
        else:
            return None
    return value


def _scalars(value: object) -> tuple[Scalar, ...]:
    if isinstance(value, Mapping):
        return tuple(key for key in value if isinstance(key, str))
    if isinstance(value, list | tuple):
        return tuple(one for one in value if _is_scalar(one))
    return (value,) if _is_scalar(value) else ()


def _is_scalar(value: object) -> TypeGuard[Scalar]:
    if isinstance(value, int):  # bool, too
        return -_HUGE < value < _HUGE
    return isinstance(value, str) or (isinstance(value, float) and math.isfinite(value))


def text_of(value: Scalar) -> str:
    """Return a value as selectors compare it: `true` and `false` for booleans, as JSON and YAML write them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
