"""Objects that were read lately, kept for the deltas that stand on them."""

from __future__ import annotations

from deploykit.git.objectformat import Found


class ObjectCache:
    """Objects by offset or id, up to `limit` bytes: two halves, the older dropped whole when the younger is full."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._young: dict[int | bytes, Found] = {}
        self._old: dict[int | bytes, Found] = {}
        self._size = 0

    def get(self, key: int | bytes) -> Found | None:
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is not None:
                self.put(key, *found)
        return found

    def put(self, key: int | bytes, kind: int, plain: bytes) -> None:
        if len(plain) > self._half >> 1:
            return
        self._young[key] = (kind, plain)
        self._size += len(plain) + 200
        if self._size > self._half:
            self._old, self._young, self._size = self._young, {}, 0
