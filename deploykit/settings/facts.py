"""Facts: what a node says of itself, so that selectors can choose it; and the caps on each of them.

Rules:

* Everybody who may read the topic of descriptions reads them. So facts of files and programs are kept back unless
  `allow` names them; `own` facts stand in the settings because they are meant to be sent.
* A value that is over a cap is left out whole: half a value could match a selector that the whole one does not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

from deploykit.settings.problems import not_a_time, too_small

#: Most values a node sends, each counted by its path: `os.name` is one.
MAX_FACTS: Final = 256
#: Most bytes of one value, as JSON.
MAX_VALUE: Final = 1024
#: Most characters of one name, and how deep maps may nest.
MAX_FACT_NAME: Final = 255
MAX_FACT_DEPTH: Final = 16
_TOO_LONG: Final = f"longer than {MAX_VALUE} bytes"
#: Readers refuse integers of more digits than a double holds.
_MOST_BITS: Final = 900
#: Most classes.
MAX_CLASSES: Final = 1000
#: Names that mean something else in selectors.
PSEUDO_FACTS: Final = frozenset({"node", "site", "version"})
#: Where Puppet writes its classes: open source, the vendor's packages, Debian's packages.
CLASSES_FILES: Final = (
    Path("/var/lib/puppet/state/classes.txt"),
    Path("/opt/puppetlabs/puppet/cache/state/classes.txt"),
    Path("/var/cache/puppet/state/classes.txt"),
)


@attrs.frozen(kw_only=True, slots=True)
class FactsSettings:
    """What a node says of itself.

    Args:
        files: JSON or YAML files with a map of facts. They are merged in order: a later file's fact replaces an
            earlier one of the same name, whole.
        facter: take the facts of `facter --json`, too; files and `own` replace them.
        own: facts of this file: always sent, and stronger than all others.
        allow: which facts of `files` and `facter` are sent: patterns (`*`, `?`, `[a-z]`) of names and paths, as
            `env` or `os.*`. Empty: none of them.
        classes_files: lists of classes, one a line; the first that exists is read. Empty: no classes.
        every: seconds between two descriptions that nobody asked for, spread by a tenth.
    """

    files: tuple[Path, ...] = ()
    facter: bool = False
    own: Mapping[str, object] = attrs.field(factory=dict)
    allow: tuple[str, ...] = ()
    classes_files: tuple[Path, ...] = CLASSES_FILES
    every: float = 300.0

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        yield from too_small(self, {"every": 10})
        yield from not_a_time(self, ("every",)) if self.every >= 10 else ()
        for at, pattern in enumerate(self.allow):
            if not pattern or not pattern.isprintable():
                yield f"allow[{at}]: expected a pattern of fact names, such as os.*, not {pattern!a}"
        count = 0
        for name, value in self.own.items():
            for path, leaf in leaves(name, value):
                count += 1
                if problem := path_problem(path) or value_problem(leaf):
                    yield f"own.{shown(path)}: {problem}"
        if count > MAX_FACTS:
            yield f"own: expected at most {MAX_FACTS} facts, not {count}"

    def warnings(self) -> Iterator[str]:
        """Yield what is right by itself and does nothing, one line each."""
        if (self.files or self.facter) and not self.allow:
            yield "allow: empty, so no fact of files and facter is sent (name those that selectors need)"
        for name in sorted(PSEUDO_FACTS & self.own.keys()):
            yield f"own.{name}: selectors use {name} for something else, and find this fact as facts.{name}"
        if self.allow and not (self.files or self.facter):
            yield "allow: means nothing without files or facter"


# -- one fact ----------------------------------------------------------------------------------------------------------


def leaves(name: str, value: object) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield each value of a fact with its path. A list is one value; a map that nests too deep is one, too."""
    waiting: list[tuple[tuple[str, ...], object]] = [((name,), value)]
    while waiting:
        path, found = waiting.pop()
        if isinstance(found, Mapping) and len(path) < MAX_FACT_DEPTH:
            waiting += [((*path, key), item) for key, item in reversed([*found.items()])]
        else:
            yield path, found


def shown(path: tuple[str, ...]) -> str:
    """Return a path for people, on one line. Never parse it.

    >>> shown(("os", "na\\nme"))
    'os.na\\\\nme'
    """
    text = ".".join(map(str, path))
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= 80 else f"{text[:77]}..."


def path_problem(path: tuple[object, ...]) -> str:
    """Return what is wrong with the names of a path; empty where nothing is."""
    for name in path:
        if not isinstance(name, str):
            return "expected a text as name"
        if not name or len(name) > MAX_FACT_NAME:
            return f"expected a name of 1 to {MAX_FACT_NAME} characters"
        if not name.isprintable():
            return "expected a name without control characters"
    return ""


def value_problem(value: object) -> str:
    """Return why a value cannot be sent; empty where it can."""
    if problem := _kind_problem(value, MAX_FACT_DEPTH):
        return problem
    size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
    return "" if size <= MAX_VALUE else _TOO_LONG


def _kind_problem(value: object, depth: int) -> str:
    """Return what is wrong with a value's kind, or that it is plainly too long: it is not turned into JSON then."""
    problem = ""
    match value:
        case bool():
            pass
        case int() if value.bit_length() > _MOST_BITS:
            problem = "the number is too large"
        case float() if not math.isfinite(value):
            problem = "expected a finite number"
        case int() | float():
            pass
        case str() if len(value) > MAX_VALUE:
            problem = _TOO_LONG
        case str():
            problem = "" if _is_unicode(value) else "expected text in UTF-8"
        case list() | tuple() | Mapping():
            problem = _inner_problem(value, depth)
        case None:
            problem = "there is no value"
        case _:
            problem = "expected text, a number, true, false, a list or a map"
    return problem


def _inner_problem(value: list[object] | tuple[object, ...] | Mapping[str, object], depth: int) -> str:
    if not depth:
        return f"nested deeper than {MAX_FACT_DEPTH}"
    if len(value) > MAX_VALUE // 2:
        return _TOO_LONG
    if isinstance(value, Mapping):
        problem = path_problem(tuple(value))
        return problem or next(filter(None, (_kind_problem(item, depth - 1) for item in value.values())), "")
    return next(filter(None, (_kind_problem(item, depth - 1) for item in value)), "")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
