"""Several parsed settings files -> one, and where each value stands. Pure.

Rules:

* Tables merge, whatever file they stand in. Lists of tables (`[[trust.grants]]`) are joined, in the order of the files.
* Any other value stands in one file. In two it is an error that names both, also where it is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs


@attrs.frozen(kw_only=True, slots=True)
class MergedSettings:
    """The content of several files as one.

    Args:
        data: all of it.
        problems: values that stand in two files.
        places: for each path in `data`, the files it stands in and its path there; the first file for "".
    """

    data: dict[str, Any]
    problems: tuple[str, ...] = ()
    places: dict[str, list[tuple[str, str]]] = attrs.field(factory=dict)

    def located(self, line: str) -> str:
        """Return a line `path: problem` with the file that the path stands in before it, and its path there."""
        path = line
        while path not in self.places:
            path = path[: max(0, *(path.rfind(mark) for mark in ".:["))]
        found = self.places[path]
        files = ", ".join(dict.fromkeys(file for file, _ in found))
        return f"{files}: {found[0][1] if path else ''}{line[len(path) :]}"


def merge(files: Sequence[tuple[str, dict[str, Any]]]) -> MergedSettings:
    """Merge files, each with its name; the first is the main one."""
    merged = _Merge()
    for name, data in files:
        merged.add(name, merged.data, data, "")
    merged.places[""] = [(files[0][0], "")]
    return MergedSettings(data=merged.data, problems=tuple(merged.problems), places=merged.places)


class _Merge:
    """What is merged so far."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.problems: list[str] = []
        self.places: dict[str, list[tuple[str, str]]] = {}

    def add(self, file: str, target: dict[str, Any], table: dict[str, Any], path: str) -> None:
        """Add a table of a file to the table at that path."""
        for key, value in table.items():
            where = f"{path}.{key}" if path else key
            known = target.get(key)
            if isinstance(value, dict) and isinstance(known, dict | None):
                self.places.setdefault(where, []).append((file, where))
                self.add(file, target.setdefault(key, {}), value, where)
            elif key not in target or (_of_tables(known, value)):
                self._append(file, target, key, value, where)
            else:
                other = self.places[where][-1][0]
                self.problems.append(f"{where}: stands in {other} and in {file}; write it in one of them")

    def _append(self, file: str, target: dict[str, Any], key: str, value: object, where: str) -> None:
        self.places.setdefault(where, []).append((file, where))
        if not isinstance(value, list):
            target[key] = value
            return
        joined = target.setdefault(key, [])
        for number, item in enumerate(value):
            self.places[f"{where}[{len(joined)}]"] = [(file, f"{where}[{number}]")]
            joined.append(item)


def _of_tables(known: object, value: object) -> bool:
    """Return whether both are lists, of tables and of nothing else."""
    if not (isinstance(known, list) and isinstance(value, list)):
        return False
    items = [*known, *value]
    return bool(items) and all(isinstance(item, dict) for item in items)
