"""Several object stores read as one, with trees of our own making on top.

An object has the same bytes in every repository that has it, so it does not matter which store gives it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dulwich.object_store import BaseObjectStore

from deploykit.errors import TreeError
from deploykit.git.objectformat import TREE, Found, hash_of_size

if TYPE_CHECKING:
    from dulwich.objects import ObjectID, RawObjectID
    from dulwich.pack import Pack


class ComposedStore(BaseObjectStore):
    """A store over others. For one thread, as they are; closing them is their owners' job.

    Args:
        first: whose object format all others must have.
    """

    def __init__(self, first: BaseObjectStore) -> None:
        super().__init__(object_format=first.object_format)
        self.stores: list[BaseObjectStore] = [first]
        self._made: dict[bytes, bytes] = {}

    def add(self, store: BaseObjectStore, name: str) -> None:
        """Read from another store, too.

        Raises:
            TreeError: its ids are of another kind.
        """
        if store.object_format.oid_length != self.object_format.oid_length:
            raise TreeError(
                f"{name} has ids of {store.object_format.name}, and they cannot stand in one of another kind",
                "convert one of the two repositories",
            )
        if all(store is not known for known in self.stores):
            self.stores.append(store)

    def keep_tree(self, content: bytes) -> bytes:
        """Add a tree of our own making; return its id (hex)."""
        digest = hash_of_size(self.object_format.oid_length).new(b"tree %d\0" % len(content))
        digest.update(content)
        oid = digest.hexdigest().encode()
        self._made[oid] = content
        return oid

    # -- as dulwich and `ObjectReader` read a store --------------------------------------------------------------------

    @property
    def packs(self) -> list[Pack]:
        """The packs of all stores."""
        return [pack for store in self.stores for pack in store.packs]

    @property
    def alternates(self) -> Sequence[BaseObjectStore]:
        """Those of all stores."""
        return [each for store in self.stores for each in getattr(store, "alternates", ())]

    def contains_loose(self, sha: ObjectID) -> bool:
        """Return whether it is a tree made here, or loose in a store."""
        return sha in self._made or any(store.contains_loose(sha) for store in self.stores)

    def contains_packed(self, sha: ObjectID | RawObjectID) -> bool:
        """Return whether it is in a pack of a store."""
        return any(store.contains_packed(sha) for store in self.stores)

    def __contains__(self, sha1: ObjectID) -> bool:
        return self.contains_packed(sha1) or self.contains_loose(sha1)

    def __iter__(self) -> Iterator[ObjectID]:
        for store in self.stores:
            yield from store

    def get_raw(self, name: RawObjectID | ObjectID) -> Found:
        """Return an object's kind and bytes.

        Raises:
            KeyError: no store has it.
        """
        oid = name if len(name) == self.object_format.hex_length else name.hex().encode()
        made = self._made.get(oid)
        if made is not None:
            return TREE, made
        for store in self.stores:
            try:
                return store.get_raw(name)
            except KeyError:
                continue
        raise KeyError(name)
