"""Which objects of Git LFS a tree needs: the pointers among the files that its `.gitattributes` give to LFS.

Rules:

* A file counts by its attributes, as for git; its content then says which object it is. One that is no pointer is an
  ordinary file that somebody committed past git-lfs.
* A directory is read once, for however many trees have it at the same place under the same attributes.
* Next to a tree whose objects are all there, only what differs from it is read.
* A tree of a few objects can describe any number of files: entries, depth and what is remembered are capped.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Final, TypeVar

import attrs

from deploykit.errors import TreeDamaged, TreeError
from deploykit.git.lfspointer import LfsPointer, parse_pointer
from deploykit.git.objectformat import BLOB
from deploykit.git.objectreader import ObjectReader
from deploykit.trees import ObjectStore
from deploykit.trees.attributes import TreeAttributes
from deploykit.trees.entries import parsed_tree
from deploykit.trees.names import shown

_ATTRIBUTES: Final = b".gitattributes"
_MAX_BYTES: Final = 64 << 20
_MAX_DEPTH: Final = 64
_MAX_ENTRIES: Final = 1_000_000
_MAX_KNOWN: Final = 100_000

#: The `.gitattributes` that apply to a directory: the directory that each is in, and its id.
_Context = tuple[tuple[bytes, bytes], ...]
K = TypeVar("K")
V = TypeVar("V")


@attrs.frozen(eq=False, slots=True)
class NeededObjects:
    """What one directory needs, with all below it. The same value stands for it in every tree that has it.

    Args:
        here: the pointers right in it, with their paths.
        below: its directories, without those that need nothing.
    """

    here: tuple[tuple[LfsPointer, bytes], ...] = ()
    below: tuple[NeededObjects, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.here or self.below)


_NOTHING: Final = NeededObjects()


def all_objects(needs: Iterable[NeededObjects]) -> dict[LfsPointer, bytes]:
    """Return every object that is needed, with the first path of it."""
    found: dict[LfsPointer, bytes] = {}
    for directory in _directories(needs):
        for pointer, path in directory.here:
            found.setdefault(pointer, path)
    return found


def first_of(needs: NeededObjects, missing: Container[LfsPointer]) -> tuple[LfsPointer, int] | None:
    """Return the first object of a tree that is missing, and how many are; None where none is."""
    lacking = [pointer for pointer in all_objects([needs]) if pointer in missing]
    return (lacking[0], len(lacking)) if lacking else None


def _directories(needs: Iterable[NeededObjects]) -> Iterator[NeededObjects]:
    seen: set[int] = set()
    todo = list(needs)[::-1]
    while todo:
        directory = todo.pop()
        if id(directory) not in seen:
            seen.add(id(directory))
            yield directory
            todo += reversed(directory.below)


class LfsScan:
    """Finds what trees of one store need. A context manager, for one thread.

    Args:
        store: the objects.
        tick: is called for each directory; what it raises ends the search.
    """

    def __init__(self, store: ObjectStore, tick: Callable[[], object] = lambda: None) -> None:
        self._reader = ObjectReader(store, max_bytes=_MAX_BYTES)
        self._tick = tick
        self._known: dict[tuple[bytes, bytes, _Context], NeededObjects] = {}
        self._attributes: dict[_Context, TreeAttributes | None] = {(): None}
        self._left = 0

    def __enter__(self) -> LfsScan:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def needed(self, tree: bytes, base: bytes = b"") -> NeededObjects:
        """Return what a tree needs.

        Args:
            tree: its id in hex.
            base: a tree of which all is there: what both have in the same place is left out.

        Raises:
            TreeError: the tree is damaged, or larger than any that is read.
        """
        self._left = _MAX_ENTRIES
        return self._directory(tree, b"", (), base, ())

    def _directory(self, tree: bytes, path: bytes, above: _Context, base: bytes, base_above: _Context) -> NeededObjects:
        if tree == base and above == base_above:
            return _NOTHING
        key = tree, path, above
        if not base and key in self._known:
            return self._known[key]
        self._tick()
        rows = self._rows(tree, path)
        old_rows = {name: (mode, oid) for name, mode, oid in self._rows(base, path)} if base else {}
        context = _with(above, path, {name: (mode, oid) for name, mode, oid in rows if name == _ATTRIBUTES})
        base_context = _with(base_above, path, old_rows)
        attributes = self._of(context)
        here: list[tuple[LfsPointer, bytes]] = []
        below: list[NeededObjects] = []
        for name, mode, oid in rows:
            full = path + b"/" + name if path else name
            old_mode, old_oid = old_rows.get(name, (0, b""))
            if stat.S_ISDIR(mode):
                old_tree = old_oid if stat.S_ISDIR(old_mode) else b""
                found = self._directory(oid, full, context, old_tree, base_context)
                if found:
                    below.append(found)
            elif attributes is None or not stat.S_ISREG(mode) or (oid == old_oid and context == base_context):
                continue
            elif attributes.of(full).get(b"filter") == b"lfs" and (pointer := self._pointer(oid)) is not None:
                here.append((pointer, full))
        needs = NeededObjects(tuple(here), tuple(below)) if here or below else _NOTHING
        if not base:
            _remember(self._known, key, needs)
        return needs

    def _rows(self, tree: bytes, path: bytes) -> list[tuple[bytes, int, bytes]]:
        rows = parsed_tree(self._reader, tree, path)
        self._left -= len(rows)
        if self._left < 0 or path.count(b"/") >= _MAX_DEPTH:
            raise TreeError(
                f"the tree is larger than any that is searched for objects of Git LFS (stopped in {shown(path)})",
                f"{_MAX_ENTRIES} entries and {_MAX_DEPTH} directories in each other are read",
            )
        return rows

    def _of(self, context: _Context) -> TreeAttributes | None:
        """Return the attributes of a context; None where none of them is a filter."""
        if context not in self._attributes:
            files = [(directory, self._reader.read(oid, BLOB)) for directory, oid in context]
            filters = any(b"filter" in content for _, content in files)
            _remember(self._attributes, context, TreeAttributes(files) if filters else None)
        return self._attributes[context]

    def _pointer(self, oid: bytes) -> LfsPointer | None:
        try:
            content, _ = self._reader.blob(oid)
        except TreeDamaged:
            raise
        except TreeError:  # larger than any pointer
            return None
        return parse_pointer(content) if isinstance(content, bytes) else None


def _remember(known: dict[K, V], key: K, value: V) -> None:
    if len(known) >= _MAX_KNOWN:
        known.clear()
    known[key] = value


def _with(above: _Context, path: bytes, rows: dict[bytes, tuple[int, bytes]]) -> _Context:
    mode, oid = rows.get(_ATTRIBUTES, (0, b""))
    return (*above, (path, oid)) if stat.S_ISREG(mode) else above


__all__ = ["LfsScan", "NeededObjects", "all_objects", "first_of"]
