"""Read trees and blobs out of a git object store: by the size they would have, before they have it.

Rules kept here:

* Nothing is expanded before its size is known and allowed. A delta of a few bytes can describe gigabytes, and so can
  each base it stands on; the whole chain is measured first.
* What is returned hashes to the id that was asked for. A damaged pack ends in an error that names the object, never
  in a wrong file.
* A large blob that is stored whole is handed out in pieces; memory stays flat.

Packs are read through dulwich's index and our own map of the file, because that costs a third of the general path.
Objects that are not in a pack (loose ones, stores in memory) go the general way.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from dulwich.errors import NotGitRepository
from dulwich.pack import PackFileDisappeared, apply_delta

from deploykit.errors import TreeDamaged, TreeError

if TYPE_CHECKING:
    from dulwich.object_store import BaseObjectStore
    from dulwich.objects import ObjectID
    from dulwich.pack import Pack

COMMIT: Final = 1
TREE: Final = 2
BLOB: Final = 3
TAG: Final = 4
_OFS_DELTA: Final = 6
_REF_DELTA: Final = 7
_KINDS: Final = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob", TAG: b"tag"}

#: A delta begins with two sizes of at most ten bytes each.
_SIZES: Final = 20
#: Deltas on deltas: git itself writes at most 4,095, and 50 by default.
_MAX_CHAIN: Final = 4096
#: Bytes of whole delta bases kept for the next object that stands on them.
_BASE_CACHE: Final = 16 * 1024 * 1024
#: A blob at least this large is handed out in pieces of this size.
PIECE: Final = 1024 * 1024


class _Refused(Exception):
    """Internal: an object is larger than allowed."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class _PackFile:
    """One pack: dulwich's index, and a map of the data file that stays readable after a repack unlinks it."""

    def __init__(self, pack: Pack) -> None:
        self.index = pack.index
        fd = os.open(os.fspath(pack.data.path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.data = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)
        self.view = memoryview(self.data)

    def header(self, pos: int) -> tuple[int, int, int]:
        """Return (kind, size, position after the header)."""
        data = self.data
        byte = data[pos]
        kind = (byte >> 4) & 7
        size = byte & 15
        shift = 4
        pos += 1
        while byte & 0x80:
            byte = data[pos]
            size |= (byte & 0x7F) << shift
            shift += 7
            pos += 1
        return kind, size, pos

    def base_offset(self, pos: int) -> tuple[int, int]:
        """Return (distance back to the base, position after it) of an offset delta."""
        data = self.data
        byte = data[pos]
        distance = byte & 0x7F
        pos += 1
        while byte & 0x80:
            byte = data[pos]
            distance = ((distance + 1) << 7) | (byte & 0x7F)
            pos += 1
        return distance, pos

    def inflate(self, pos: int, size: int) -> bytes:
        """Inflate exactly `size` bytes; a stream that holds more or less is damaged."""
        stream = zlib.decompressobj()
        step = size // 2 + 128  # a guess that keeps zlib's copy of what follows the stream small
        out = stream.decompress(self.view[pos : pos + step], size + 1)
        if stream.eof and len(out) == size:
            return out
        parts = [out]
        got = len(out)
        pos += step
        while not stream.eof and got <= size:
            fresh = self.view[pos : pos + step]
            if not fresh and not stream.unconsumed_tail:
                break
            pos += len(fresh)
            out = stream.decompress(stream.unconsumed_tail + bytes(fresh), size + 1 - got)
            got += len(out)
            parts.append(out)
        if got != size or not stream.eof:
            raise zlib.error("the stored size and the stream do not agree")
        return b"".join(parts)

    def pieces(self, pos: int, size: int) -> Iterator[bytes]:
        """Inflate `size` bytes in pieces."""
        stream = zlib.decompressobj()
        got = 0
        while not stream.eof:
            fresh = self.view[pos : pos + PIECE // 4]
            if not fresh and not stream.unconsumed_tail:
                break
            pos += len(fresh)
            pending = stream.unconsumed_tail + bytes(fresh)
            while pending and not stream.eof:
                out = stream.decompress(pending, PIECE)
                pending = stream.unconsumed_tail
                got += len(out)
                if got > size:
                    raise zlib.error("the stream holds more than the stored size")
                if out:
                    yield out
        if got != size or not stream.eof:
            raise zlib.error("the stored size and the stream do not agree")

    def delta_size(self, pos: int) -> int:
        """Return the size of what a delta makes, from its first bytes."""
        stream = zlib.decompressobj()
        head = b""
        while len(head) < _SIZES and not stream.eof and pos < len(self.view):
            head += stream.decompress(self.view[pos : pos + 256])  # so little in cannot make much out
            pos += 256
        at = 0
        for _ in range(2):  # the base's size, then the result's
            result = shift = 0
            while True:
                byte = head[at]
                at += 1
                result |= (byte & 0x7F) << shift
                shift += 7
                if not byte & 0x80:
                    break
        return result

    def close(self) -> None:
        # A traceback may still hold a slice of the map; it then goes when the traceback does.
        with contextlib.suppress(BufferError):
            self.view.release()
            self.data.close()


class ObjectReader:
    """Reads objects from one store. Not for two threads at once: make one reader per thread.

    Args:
        store: a dulwich object store.
        max_bytes: no object larger than this is expanded, nor any delta base on the way to it.
    """

    def __init__(self, store: BaseObjectStore, *, max_bytes: int) -> None:
        self.store = store
        self._max = max_bytes
        self._packs: list[_PackFile] | None = None
        self._bases: OrderedDict[tuple[int, int], tuple[int, bytes]] = OrderedDict()
        self._bases_size = 0
        self._hash = hashlib.sha1 if store.object_format.oid_length == 20 else hashlib.sha256
        self.oid_length: int = store.object_format.oid_length

    def __enter__(self) -> ObjectReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the maps of the packs."""
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
            place = self._find(bytes.fromhex(oid.decode()))
        except ValueError as error:
            raise _damaged(oid, str(error)) from error
        return self._checked(oid, kind, place)

    def _checked(self, oid: bytes, kind: int, place: tuple[_PackFile, int] | None) -> bytes:
        found, content = self._guarded(oid, place)
        self._expect(oid, kind, found)
        digest = self._hash(b"%s %d\0" % (_KINDS[kind], len(content)), usedforsecurity=False)
        digest.update(content)
        if digest.hexdigest().encode() != oid:
            raise _damaged(oid, "its content does not hash to its name")
        return content

    def blob(self, oid: bytes) -> bytes | Iterator[bytes]:
        """Return a blob whole, or in pieces when it is large and stored so that pieces are possible.

        The pieces are checked while they are handed out: the last step of the iteration raises when they do not
        hash to `oid`, so nothing may be used before the iterator has ended.
        """
        try:
            place = self._find(bytes.fromhex(oid.decode()))
        except ValueError as error:
            raise _damaged(oid, str(error)) from error
        if place is not None:
            pack, offset = place
            found, size, pos = pack.header(offset)
            if found == BLOB and 2 * PIECE <= size <= self._max:
                return self._pieces(oid, pack, pos, size)
        return self._checked(oid, BLOB, place)

    def _pieces(self, oid: bytes, pack: _PackFile, pos: int, size: int) -> Iterator[bytes]:
        digest = self._hash(b"blob %d\0" % size, usedforsecurity=False)
        try:
            for piece in pack.pieces(pos, size):
                digest.update(piece)
                yield piece
        except zlib.error as error:
            raise _damaged(oid, str(error)) from error
        if digest.hexdigest().encode() != oid:
            raise _damaged(oid, "its content does not hash to its name")

    def _guarded(self, oid: bytes, place: tuple[_PackFile, int] | None) -> tuple[int, bytes]:
        try:
            if place is not None:
                return self._from_pack(*place)
            return self._general(oid)
        except _Refused as error:
            raise self._too_large(oid, error.size) from None
        except KeyError as error:
            raise TreeDamaged(
                f"object {oid.decode()} is missing from the object store", "fetch the mirror again, or check it"
            ) from error
        except (zlib.error, ValueError, IndexError, AssertionError, NotGitRepository) as error:
            raise _damaged(oid, str(error)) from error

    def _too_large(self, oid: bytes, size: int) -> TreeError:
        return TreeError(
            f"object {oid.decode()} would expand to {size} bytes, or stands on one that does; {self._max} are allowed",
            "raise max_file_bytes if the repository is to be trusted",
        )

    @staticmethod
    def _expect(oid: bytes, kind: int, found: int) -> None:
        if kind != found:
            want, have = _KINDS[kind].decode(), _KINDS.get(found, b"unknown").decode()
            raise TreeError(f"object {oid.decode()} is a {have} where a {want} must stand", "check the repository")

    # -- packs ---------------------------------------------------------------------------------------------------

    def _open_packs(self) -> list[_PackFile]:
        found: list[_PackFile] = []
        stores: list[BaseObjectStore] = [self.store]
        seen = 0
        while stores and seen < 8:  # alternates of alternates; a circle ends here too
            store = stores.pop(0)
            seen += 1
            for pack in store.packs:
                try:
                    found.append(_PackFile(pack))
                except (OSError, ValueError, PackFileDisappeared):
                    continue  # repacked away under us: what it held is in another pack, or goes the general way
            stores.extend(getattr(store, "alternates", ()))
        return found

    def _find(self, raw: bytes) -> tuple[_PackFile, int] | None:
        if self._packs is None:
            self._packs = self._open_packs()
        packs = self._packs
        for at, pack in enumerate(packs):
            try:
                offset = pack.index.object_offset(raw)  # type: ignore[arg-type]
            except KeyError:
                continue
            if at:  # neighbours live together: ask this pack first next time
                packs.insert(0, packs.pop(at))
            return pack, offset
        return None

    def _from_pack(self, pack: _PackFile, offset: int) -> tuple[int, bytes]:
        """Measure the whole delta chain, then build the object from its base up."""
        chain: list[tuple[_PackFile, int, int, int]] = []  # pack, offset, bytes of the delta, position of the stream
        while True:
            cached = self._bases.get((id(pack), offset))
            if cached is not None:
                self._bases.move_to_end((id(pack), offset))
                kind, content = cached
                break
            kind, size, pos = pack.header(offset)
            if size > self._max:
                raise _Refused(size)
            if kind in _KINDS:
                content = pack.inflate(pos, size)
                if chain:
                    self._keep(pack, offset, kind, content)
                break
            base, pos = self._base(pack, offset, kind, pos)
            self._measure(pack, pos)
            chain.append((pack, offset, size, pos))
            if len(chain) > _MAX_CHAIN:
                raise ValueError("the delta chain does not end")
            if not isinstance(base[0], _PackFile):
                kind, content = self._general(base[0])
                break
            pack, offset = base[0], base[1]
        for holder, at, size, pos in reversed(chain):
            content = b"".join(apply_delta(content, holder.inflate(pos, size)))
            if at != chain[0][1]:
                self._keep(holder, at, kind, content)
        return kind, content

    def _base(self, pack: _PackFile, offset: int, kind: int, pos: int) -> tuple[tuple[_PackFile | bytes, int], int]:
        """Find what a delta stands on: a place in a pack, or the name of an object elsewhere."""
        if kind == _OFS_DELTA:
            distance, pos = pack.base_offset(pos)
            if not 0 < distance <= offset:
                raise ValueError("a delta points outside its pack")
            return (pack, offset - distance), pos
        if kind != _REF_DELTA:
            raise ValueError(f"unknown object kind {kind}")
        name = bytes(pack.view[pos : pos + self.oid_length])
        place = self._find(name)
        return (place if place is not None else (name.hex().encode(), 0)), pos + self.oid_length

    def _measure(self, pack: _PackFile, pos: int) -> None:
        size = pack.delta_size(pos)
        if size > self._max:
            raise _Refused(size)

    def _keep(self, pack: _PackFile, offset: int, kind: int, content: bytes) -> None:
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
        """A loose object says its size in its first bytes; look there before anything is expanded."""
        path = getattr(self.store, "path", None)
        if path is None:
            return
        name = oid.decode()
        try:
            fd = os.open(os.path.join(os.fsdecode(path), name[:2], name[2:]), os.O_RDONLY | os.O_CLOEXEC)  # noqa: PTH118
        except OSError:
            return
        try:
            head = zlib.decompressobj().decompress(os.read(fd, 128), 64)
        finally:
            os.close(fd)
        size = int(head.partition(b"\0")[0].partition(b" ")[2])
        if size > self._max:
            raise _Refused(size)


def _damaged(oid: bytes, why: str) -> TreeDamaged:
    return TreeDamaged(f"object {oid.decode()} is damaged: {why}", "run `deploykit mirror check`, it clones anew")


def blob_id(content: bytes, oid_length: int) -> bytes:
    """Return the raw git id that `content` has as a blob."""
    new = hashlib.sha1 if oid_length == 20 else hashlib.sha256
    digest = new(b"blob %d\0" % len(content), usedforsecurity=False)
    digest.update(content)
    return digest.digest()
