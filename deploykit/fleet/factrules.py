"""Which facts a node sends, out of all that it knows. Pure.

Rules:

* Own facts first, and all of them. Of the others those that a pattern allows, by name.
* What is over a cap is left out whole and named in `cut`. What is not allowed is not named anywhere.
* Whoever reads `cut` sees names of facts, never values and never paths of files.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import attrs

from deploykit.settings.facts import MAX_FACTS, leaves, path_problem, shown, value_problem

#: Names of left out facts that one line of `cut` has; then only their number.
_NAMED: Final = 5


@attrs.frozen(kw_only=True, slots=True)
class ChosenFacts:
    """What a node sends.

    Args:
        facts: names and values; maps stay maps.
        cut: what was left out, a line each.
    """

    facts: Mapping[str, object] = attrs.field(factory=dict)
    cut: tuple[str, ...] = ()


def choose_facts(own: Mapping[str, object], found: Mapping[str, object], allow: Iterable[str]) -> ChosenFacts:
    """Return the facts that are sent.

    Args:
        own: the settings' own.
        found: those of files and programs.
        allow: patterns of names and paths; a pattern that matches a map's name allows the whole map.
    """
    allowed = _matcher(allow)
    facts: dict[str, object] = {}
    left_out: dict[str, list[str]] = {}
    count = 0
    for origin in (own, {name: found[name] for name in sorted(found) if name not in own}):
        for name, value in origin.items():
            for path, leaf in leaves(name, value):
                if leaf is None or (origin is not own and not allowed(path)):
                    continue
                if problem := path_problem(path) or value_problem(leaf):
                    left_out.setdefault(problem, []).append(shown(path))
                elif count >= MAX_FACTS:
                    left_out.setdefault(f"more than {MAX_FACTS} facts", []).append(shown(path))
                else:
                    count += 1
                    _put(facts, path, leaf)
    return ChosenFacts(facts=facts, cut=tuple(_line(why, names) for why, names in left_out.items()))


def _matcher(allow: Iterable[str]) -> Callable[[tuple[str, ...]], bool]:
    patterns = [re.compile(fnmatch.translate(pattern)) for pattern in allow]

    def allowed(path: tuple[str, ...]) -> bool:
        starts = [".".join(map(str, path[: at + 1])) for at in range(len(path))]
        return any(pattern.match(start) for pattern in patterns for start in starts)

    return allowed


def _put(facts: dict[str, object], path: tuple[str, ...], leaf: object) -> None:
    into = facts
    for name in path[:-1]:
        below = into.setdefault(name, {})
        assert isinstance(below, dict)  # noqa: S101 - made here: a path's beginning is never a value
        into = below
    into[path[-1]] = leaf


def _line(why: str, names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"facts left out ({why}): {', '.join(names[:_NAMED])}{more}"
