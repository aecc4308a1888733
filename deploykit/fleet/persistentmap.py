"""An immutable map whose next version shares nearly everything with the one before. Pure.

A rollout of 50,000 nodes has 50,000 answers and more. A dictionary that is copied for each of them takes a minute and
a half; here each answer costs some hundred entries.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from math import isqrt
from typing import Final, Generic, TypeVar, cast

K = TypeVar("K")
V = TypeVar("V")

#: Stands for a value that was taken out.
_GONE: Final = object()
_ABSENT: Final = object()
#: So many changes at least are kept beside the base.
_FEW: Final = 32


class PersistentMap(Mapping[K, V], Generic[K, V]):
    """A map of fixed keys, in their order, of which later versions may lack some. It equals a `dict` of the same items.

    Changes stand in a small dictionary beside a large one, which all versions share. When there are more of them than
    the square root of the size, both become the next large one.
    """

    __slots__ = ("_base", "_changes", "_gone")

    def __init__(self, items: Mapping[K, V]) -> None:
        """Make it of a copy of `items`."""
        self._base: dict[K, V] = dict(items)
        self._changes: dict[K, object] = {}
        self._gone = 0

    def updated(self, changes: Mapping[K, V]) -> PersistentMap[K, V]:
        """Return a map with other values for keys that are in it.

        Raises:
            KeyError: one of them is not.
        """
        for key in changes:
            self[key]
        return self._next(changes, self._gone) if changes else self

    def without(self, keys: Iterable[K]) -> PersistentMap[K, V]:
        """Return a map that lacks some keys; those that are not in it are ignored."""
        gone = [key for key in dict.fromkeys(keys) if key in self]
        return self._next(dict.fromkeys(gone, _GONE), self._gone + len(gone)) if gone else self

    def _next(self, changes: Mapping[K, object], gone: int) -> PersistentMap[K, V]:
        made: PersistentMap[K, V] = PersistentMap.__new__(PersistentMap)
        made._base, made._changes, made._gone = self._base, {**self._changes, **changes}, gone
        if len(made._changes) > max(_FEW, isqrt(len(made._base))):
            made._base, made._changes, made._gone = made._merged(), {}, 0
        return made

    def __getitem__(self, key: K) -> V:
        value = self._changes.get(key, _ABSENT)
        if value is _ABSENT:
            return self._base[key]
        if value is _GONE:
            raise KeyError(key)
        return cast(V, value)

    def __contains__(self, key: object) -> bool:
        return key in self._base and self._changes.get(key) is not _GONE

    def __len__(self) -> int:
        return len(self._base) - self._gone

    def __iter__(self) -> Iterator[K]:
        if not self._gone:
            return iter(self._base)
        changes = self._changes
        return (key for key in self._base if changes.get(key) is not _GONE)

    def items(self) -> ItemsView[K, V]:
        """Return a view of keys and values, in order."""
        return _Items(self)

    def values(self) -> ValuesView[V]:
        """Return a view of the values, in order."""
        return _Values(self)

    def changed_since(self, before: PersistentMap[K, V]) -> tuple[K, ...]:
        """Return the keys whose values are other objects than in an earlier version of this map, in order."""
        shared = self._base is before._base
        keys = self._changes.keys() | before._changes.keys() if shared else self._base.keys()
        changed = {key for key in keys if key in self and (key not in before or self[key] is not before[key])}
        return tuple(changed) if len(changed) < 2 else tuple(key for key in self._base if key in changed)

    def _merged(self) -> dict[K, V]:
        merged: dict[K, V] = self._base.copy()
        for key, value in self._changes.items():
            if value is _GONE:
                del merged[key]
            else:
                merged[key] = cast(V, value)
        return merged

    def _pairs(self) -> Iterator[tuple[K, V]]:
        """Yield keys and values without a look-up of each key in two dictionaries."""
        if not self._changes:
            yield from self._base.items()
            return
        find = self._changes.get
        for key, value in self._base.items():
            now = find(key, value)
            if now is not _GONE:
                yield key, cast(V, now)

    def __repr__(self) -> str:
        return f"PersistentMap({dict(self._pairs())!r})"


class _Items(ItemsView[K, V]):
    """Iterates in one go."""

    _mapping: PersistentMap[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return self._mapping._pairs()


class _Values(ValuesView[V]):
    """Iterates in one go."""

    _mapping: PersistentMap[object, V]

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in self._mapping._pairs())


__all__ = ["PersistentMap"]
