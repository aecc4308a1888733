"""Read trees and blobs out of a git object store, within a limit on their size.

Rules:

* Nothing is expanded before its size is known and allowed. A delta of a few bytes can describe gigabytes, and so can
  each of its bases: the whole chain is measured first.
* What is returned hashes to the id that was asked for. A damaged pack ends in an error that names the object and its
  repository, never in a wrong file.
* A large blob that is stored whole is returned in pieces, so that memory stays flat.

`packreader` reads packs, at a third of dulwich's cost. dulwich reads objects that are not in a pack (loose ones, stores
in memory).
"""

from __future__ import annotations

import os
import traceback
import zlib
from binascii import unhexlify
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dulwich.errors import ApplyDeltaError, ChecksumMismatch, FileFormatException, NotGitRepository
from dulwich.pack import PackFileDisappeared, apply_delta

from deploykit.errors import TreeDamaged, TreeError
from deploykit.git.objectformat import BLOB, KIND_NAMES, OFS_DELTA, REF_DELTA, hash_of_size
from deploykit.git.packformat import base_distance, delta_result_size, object_head
from deploykit.git.packreader import PIECE, SMALL, PackFile

if TYPE_CHECKING:
    from dulwich.object_store import BaseObjectStore
    from dulwich.objects import ObjectID

#: Deltas on deltas: git itself writes at most 4,095, and 50 by default.
_MAX_CHAIN: Final = 4096
#: Bytes of whole delta bases kept for the next object that stands on them.
_BASE_CACHE: Final = 16 * 1024 * 1024
#: Look-ups after which the maps of the packs give back their memory.
_BREATH: Final = 1024
#: Bytes of small deltas of one chain that are kept between measuring and applying them.
_KEPT_DELTAS: Final = 1024 * 1024


#: What dulwich and zlib raise on damaged bytes.
_DAMAGE: Final = (
    *(zlib.error, ValueError, IndexError, AssertionError),
    *(NotGitRepository, FileFormatException, ChecksumMismatch, ApplyDeltaError),
)


#: Alternates of alternates; a circle of them ends here too.
_MOST_ALTERNATES: Final = 7
_MISMATCH: Final = "its content does not hash to its name"


class _Refused(Exception):
    """An object is larger than allowed: internal to this module."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class ObjectReader:
    """Reads objects from one store. Make one reader per thread.

    Args:
        store: a dulwich object store.
        max_bytes: no object larger than this is expanded, nor any delta base on the way to it.
    """

    def __init__(self, store: BaseObjectStore, *, max_bytes: int) -> None:
        self.store = store
        self._max = max_bytes
        self._packs: list[PackFile] | None = None
        self._bases: OrderedDict[tuple[int, int], tuple[int, bytes]] = OrderedDict()
        self._bases_size = 0
        self._found = 0
        self.oid_length: int = store.object_format.oid_length
        # Copied for each object: a new one looks the algorithm up, which costs more than to hash a page.
        self._empty = hash_of_size(self.oid_length).new(b"")

    def __enter__(self) -> ObjectReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unmap the packs."""
        packs, self._packs = self._packs or [], None
        self._bases.clear()
        self._bases_size = 0
        for pack in packs:
            pack.close()

    def read(self, oid: bytes, kind: int) -> bytes:
        """Return the content of object `oid` (hex).

        Raises:
            TreeError: missing, damaged, of another kind, or larger than allowed.
        """
        try:
            raw = unhexlify(oid)
        except ValueError as error:
            raise self._damaged(oid, error, None) from error
        return self._checked(oid, raw, kind, self._find(raw))

    def _checked(self, oid: bytes, raw: bytes, kind: int, place: tuple[PackFile, int] | None) -> bytes:
        found, content = self._guarded(oid, place)
        if kind != found:
            want, have = KIND_NAMES[kind].decode(), KIND_NAMES.get(found, b"unknown").decode()
            raise TreeError(f"object {oid.decode()} is a {have} where a {want} must stand", "check the repository")
        digest = self._empty.copy()
        digest.update(b"%s %d\0" % (KIND_NAMES[kind], len(content)))
        digest.update(content)
        if digest.digest() != raw:
            raise self._damaged(oid, _MISMATCH, place)
        return content

    def blob(self, oid: bytes) -> tuple[bytes | Iterator[bytes], bytes]:
        """Return a blob and its binary id: bytes, or an iterator of pieces where it is large and stored whole.

        The last step of the iteration raises when the pieces do not hash to `oid`: use nothing before it has ended.

        Raises:
            TreeError: missing, damaged, of another kind, or larger than allowed.
        """
        try:
            raw = unhexlify(oid)
        except ValueError as error:
            raise self._damaged(oid, error, None) from error
        place = self._find(raw)
        if place is not None:
            # Most files are stored whole. This path is for them alone: it is what a fresh export of thousands costs.
            pack, offset = place
            try:
                found, size, pos = object_head(pack.data, offset)
            except (IndexError, ValueError) as error:
                raise self._damaged(oid, error, place) from error
            if found == BLOB and size <= self._max:
                if size >= 2 * PIECE:
                    return self._pieces(oid, pack, pos, size), raw
                try:
                    content = pack.inflate(pos, size)
                except zlib.error as error:
                    raise self._damaged(oid, error, place) from error
                digest = self._empty.copy()
                digest.update(b"blob %d\0" % size)
                digest.update(content)
                if digest.digest() != raw:
                    raise self._damaged(oid, _MISMATCH, place)
                return content, raw
        return self._checked(oid, raw, BLOB, place), raw

    def _pieces(self, oid: bytes, pack: PackFile, pos: int, size: int) -> Iterator[bytes]:
        digest = self._empty.copy()
        digest.update(b"blob %d\0" % size)
        try:
            for piece in pack.pieces(pos, size):
                digest.update(piece)
                yield piece
        except zlib.error as error:
            raise self._damaged(oid, error, (pack, pos)) from error
        if digest.hexdigest().encode() != oid:
            raise self._damaged(oid, _MISMATCH, (pack, pos))

    def _guarded(self, oid: bytes, place: tuple[PackFile, int] | None) -> tuple[int, bytes]:
        try:
            if place is not None:
                return self._from_pack(*place)
            return self._general(oid)
        except _Refused as error:
            raise self._too_large(oid, error.size) from None
        except KeyError as error:
            raise TreeDamaged(
                f"object {oid.decode()} is missing from the object store",
                "fetch the mirror again, or check it",
                repository=self._repository(oid, place),
            ) from error
        except _DAMAGE as error:
            raise self._damaged(oid, error, place) from error

    def _damaged(self, oid: bytes, why: Exception | str, place: tuple[PackFile, int] | None) -> TreeDamaged:
        if isinstance(why, Exception):
            # The frames hold on to the mapped file, and dulwich then leaves the pack open when the store is closed.
            traceback.clear_frames(why.__traceback__)
        return TreeDamaged(
            f"object {oid.decode()} is damaged: {why}",
            "run `deploykit mirror check`, it clones anew",
            repository=self._repository(oid, place),
        )

    def _repository(self, oid: bytes, place: tuple[PackFile, int] | None) -> str:
        """Return the directory of the repository whose copy of an object is read; empty where none of several has one.

        Args:
            place: of the object; None where it is in no pack.
        """
        if place is not None:
            return place[0].repository
        stores = _plain_stores(self.store)
        found = stores if len(stores) == 1 else [each for each in stores if os.path.lexists(_loose_file(each, oid))]
        return directory_of(found[0]) if found else ""

    def _too_large(self, oid: bytes, size: int) -> TreeError:
        return TreeError(
            f"object {oid.decode()} would expand to {size} bytes, or stands on one that does; {self._max} are allowed",
            "raise max_file_bytes if the repository is to be trusted",
        )

    # -- packs ---------------------------------------------------------------------------------------------------

    def _open_packs(self) -> list[PackFile]:
        found: list[PackFile] = []
        stores = _plain_stores(self.store)
        most = len(stores) + _MOST_ALTERNATES
        while stores and most:
            store = stores.pop(0)
            most -= 1
            for pack in store.packs:
                try:
                    found.append(PackFile(pack, self.oid_length))
                except (OSError, ValueError, PackFileDisappeared):
                    continue  # a repack removed it: its objects are in another pack, or dulwich finds them
                except Exception as error:  # dulwich fails in many ways on a damaged head, end or index
                    where = directory_of(store)
                    raise TreeDamaged(
                        f"a pack of {where} is damaged: {error}",
                        "run `deploykit mirror check`, it clones anew",
                        repository=where,
                    ) from error
            stores.extend(getattr(store, "alternates", ()))
        return found

    def _find(self, raw: bytes) -> tuple[PackFile, int] | None:
        if self._packs is None:
            self._packs = self._open_packs()
        packs = self._packs
        self._found += 1
        if self._found % _BREATH == 0:
            for pack in packs:
                pack.let_go()
        for at, pack in enumerate(packs):
            try:
                offset = pack.find(raw)
            except KeyError:
                continue
            if at:  # related objects lie in one pack: try this one first next time
                packs.insert(0, packs.pop(at))
            return pack, offset
        return None

    def _from_pack(self, pack: PackFile, offset: int) -> tuple[int, bytes]:
        """Return the object at `offset`: measure its whole delta chain, then build it from the base up."""
        # pack, offset, bytes of the delta, position of its stream, and the delta itself where it is small
        chain: list[tuple[PackFile, int, int, int, bytes | None]] = []
        held = 0
        while True:
            cached = self._bases.get((id(pack), offset))
            if cached is not None:
                self._bases.move_to_end((id(pack), offset))
                kind, content = cached
                break
            kind, size, pos = object_head(pack.data, offset)
            if size > self._max:
                raise _Refused(size)
            if kind in KIND_NAMES:
                content = pack.inflate(pos, size)
                if chain:
                    self._keep(pack, offset, kind, content)
                break
            base, pos = self._base(pack, offset, kind, pos)
            delta = pack.inflate(pos, size) if size <= SMALL and held < _KEPT_DELTAS else None
            held += size if delta is not None else 0
            makes = delta_result_size(delta if delta is not None else pack.delta_head(pos))
            if makes > self._max:
                raise _Refused(makes)
            chain.append((pack, offset, size, pos, delta))
            if len(chain) > _MAX_CHAIN:
                raise ValueError("the delta chain does not end")
            if not isinstance(base[0], PackFile):
                kind, content = self._general(base[0])
                break
            pack, offset = base[0], base[1]
        for holder, at, size, pos, delta in reversed(chain):
            content = b"".join(apply_delta(content, delta if delta is not None else holder.inflate(pos, size)))
            if at != chain[0][1]:
                self._keep(holder, at, kind, content)
        return kind, content

    def _base(self, pack: PackFile, offset: int, kind: int, pos: int) -> tuple[tuple[PackFile | bytes, int], int]:
        """Return the base of a delta, a place in a pack or the id of an object elsewhere, and the position after."""
        if kind == OFS_DELTA:
            distance, pos = base_distance(pack.data, pos)
            if not 0 < distance <= offset:
                raise ValueError("a delta points outside its pack")
            return (pack, offset - distance), pos
        if kind != REF_DELTA:
            raise ValueError(f"unknown object kind {kind}")
        name = bytes(pack.view[pos : pos + self.oid_length])
        place: tuple[PackFile, int] | None
        try:
            place = pack, pack.find(name)  # git writes it there; another repository's copy is not ours to judge
        except KeyError:
            place = self._find(name)
        return (place if place is not None else (name.hex().encode(), 0)), pos + self.oid_length

    def _keep(self, pack: PackFile, offset: int, kind: int, content: bytes) -> None:
        if len(content) > _BASE_CACHE // 4:
            return
        self._bases[(id(pack), offset)] = (kind, content)
        self._bases_size += len(content)
        while self._bases_size > _BASE_CACHE:
            _, (_, dropped) = self._bases.popitem(last=False)
            self._bases_size -= len(dropped)

    # -- everything else -------------------------------------------------------------------------------------------

    def _general(self, oid: bytes) -> tuple[int, bytes]:
        self._measure_loose(oid)
        name: ObjectID = oid  # type: ignore[assignment]
        try:
            return self.store.get_raw(name)
        except PackFileDisappeared as error:
            raise KeyError(oid) from error

    def _measure_loose(self, oid: bytes) -> None:
        """Read the size of a loose object from its first bytes, and refuse it before anything is expanded."""
        for store in _plain_stores(self.store):
            if path := _loose_file(store, oid):
                self._measure_file(path)

    def _measure_file(self, path: str) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            head = zlib.decompressobj().decompress(os.read(fd, 128), 64)
        finally:
            os.close(fd)
        size = int(head.partition(b"\0")[0].partition(b" ")[2])
        if size > self._max:
            raise _Refused(size)


def directory_of(store: BaseObjectStore) -> str:
    """Return the directory of the repository that a store's objects are in; empty for any other kind of store."""
    path = getattr(store, "path", None)
    return str(Path(os.fsdecode(path)).parent) if path is not None else ""


def _plain_stores(store: BaseObjectStore) -> list[BaseObjectStore]:
    """Return a store alone, or those that it is composed of (`ComposedStore`), each once."""
    parts: Sequence[BaseObjectStore] | None = getattr(store, "stores", None)
    return [store] if parts is None else list(dict.fromkeys(plain for part in parts for plain in _plain_stores(part)))


def _loose_file(store: BaseObjectStore, oid: bytes) -> str:
    """Return the path of an object's own file in a store; empty for a store that is not on disk."""
    path, name = getattr(store, "path", None), oid.decode()
    return os.path.join(os.fsdecode(path), name[:2], name[2:]) if path is not None else ""  # noqa: PTH118
