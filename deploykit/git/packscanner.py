"""Scan a pack as it comes: compute every object's id, and collect what each of them points to.

Rules:

* One pass, and each object is inflated once where memory allows.
* Nothing in the pack is believed: sizes are capped before anything is allocated, every byte is hashed.
* Every link is collected (commit to tree and parents, tree to entries, tag to target), so that the caller can refuse a
  pack from which something is missing.
* Memory does not grow with the pack's bytes, only with its objects, by about 130 bytes each.

Git writes a delta after its base and keeps families of deltas together, so almost every delta finds its base in a
small cache and is resolved on the spot; the others wait for `finish`, which walks them family by family.
"""

from __future__ import annotations

import os
import zlib
from array import array
from binascii import crc32
from bisect import bisect_left
from collections.abc import Callable
from typing import Final

import attrs
from dulwich.errors import ApplyDeltaError
from dulwich.pack import apply_delta

from deploykit.errors import PackError
from deploykit.git.bigblob import BIG, BigBlob
from deploykit.git.objectcache import ObjectCache
from deploykit.git.objectformat import BLOB, COMMIT, KIND_NAMES, TAG, TREE, Found, HashKind
from deploykit.git.objectlinks import ObjectLinks
from deploykit.git.packformat import delta_result_size, read_header

_MAX_DEPTH: Final = 10_000


@attrs.frozen(kw_only=True, slots=True)
class ScanLimits:
    """How large one object may be.

    Args:
        object_bytes: the largest object that has to be in memory whole (a delta, its base, its result).
        meta_bytes: the largest commit, tree or tag.
        cache_bytes: how much resolved data is kept to resolve later deltas from.
    """

    object_bytes: int = 512 << 20
    meta_bytes: int = 32 << 20
    cache_bytes: int = 12 << 20


def _too_large(problem: str, size: int, limits: ScanLimits) -> PackError:
    if size > limits.object_bytes:
        return PackError(problem, "raise the mirror's max_object_bytes if the repository is to be trusted")
    return PackError(problem, f"a commit, tree or tag has at most {limits.meta_bytes} bytes; mend the repository")


class PackScanner:
    """Feed it a pack's bytes in order, then call `finish`.

    Args:
        hash_kind: the repository's object format.
        fd: the file that holds every byte before it is fed; read again where a base has left the cache.
        external: returns the base of a delta that is not in the pack (a thin pack), or None.
        limits: see `ScanLimits`.
        tick: called often; it may raise to stop (deadline), or report progress.

    After `finish`: `offsets`, `crcs` and `ids` run in parallel; `known` holds the ids by kind; `missing` the links that
    lead out of the pack, by kind; `external_bases` what has to be appended to make a thin pack whole; `tags` maps each
    annotated tag to its target.
    """

    def __init__(
        self,
        hash_kind: HashKind,
        fd: int,
        *,
        external: Callable[[bytes], Found | None] = lambda _oid: None,
        limits: ScanLimits | None = None,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._hash = hash_kind
        self._fd = fd
        self._external = external
        self._limits = limits or ScanLimits()
        self._tick = tick
        self._sum = hash_kind.new(b"")
        self._rest = b""
        self._rest_at = 0  # offset in the pack of the first byte of _rest
        self._need = 12
        self._big: BigBlob | None = None
        self._links = ObjectLinks(hash_kind)
        self._note = self._links.note
        self._cache = ObjectCache(self._limits.cache_bytes)
        self._waiting: dict[int, list[int]] = {}
        self._waiting_ref: dict[bytes, list[int]] = {}
        self.total = -1
        self.checksum = b""
        self.offsets = array("Q")
        self.crcs = array("I")
        self.ids: list[bytes] = []
        self.known = self._links.known
        self.missing = self._links.missing
        self.tags = self._links.tags
        self.external_bases: set[bytes] = set()

    @property
    def done(self) -> int:
        """How many objects have come."""
        return len(self.offsets)

    # -- the stream --------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            PackError: they cannot be part of a sound pack.
        """
        if self._big is not None:
            used = self._feed_big(self._big, data, 0)
            self._sum.update(memoryview(data)[:used])
            self._rest_at += used
            data = data[used:]
        if self._rest:
            data = self._rest + data
        if len(data) < self._need:
            self._rest = data
            return
        pos = 0
        if self.total < 0:
            version = int.from_bytes(data[4:8], "big")
            if data[:4] != b"PACK" or version not in (2, 3):
                raise PackError("the origin sent something that is not a pack")
            self.total = int.from_bytes(data[8:12], "big")
            pos = 12
        self._need = 1
        used = self._scan(data, pos)
        self._sum.update(memoryview(data)[:used])
        self._rest = data[used:]
        self._rest_at += used
        if len(self.offsets) == self.total and self._big is None:
            self._take_checksum()
        self._tick()

    def _take_checksum(self) -> None:
        size = self._need = self._hash.size
        if len(self._rest) < size:
            return
        if len(self._rest) > size:
            raise PackError("the origin sent bytes after the end of the pack")
        if self._rest != self._sum.digest():
            raise PackError("the pack was damaged on the way: its checksum is wrong", "fetch again")
        self.checksum = self._rest

    def _scan(self, data: bytes, pos: int) -> int:
        """Scan the whole objects in `data` from `pos`; return where the first incomplete one starts."""
        view = memoryview(data)
        end = len(data)
        at, total = self._rest_at, self.total
        offsets, crcs, ids = self.offsets, self.crcs, self.ids
        inflated, name, cached, remember = self._inflate, self._name, self._cache.get, self._cache.put
        while pos < end and len(offsets) < total:
            start = pos
            try:
                kind, size, base, pos = read_header(data, pos, at + pos, self._hash.size)
            except IndexError:
                self._need = end - start + 1
                return start
            if kind == BLOB and size > BIG:
                offsets.append(at + start)
                crcs.append(0)
                ids.append(b"")
                pos = self._feed_big(BigBlob(self._hash, size, at + start, crc32(view[start:pos])), data, pos)
                continue
            plain, pos = inflated(view, pos, size, kind, at + start)
            if plain is None:
                self._need = end - start + min(end - start, size) + 64
                return start
            offset = at + start
            offsets.append(offset)
            crcs.append(crc32(view[start:pos]))
            if base is not None:
                found = cached(base) if isinstance(base, int) else self._find_base(base)
                if found is None:
                    self._wait(len(ids), base)
                    ids.append(b"")
                    continue
                kind, plain = found[0], self._apply(found, plain, offset)
            ids.append(name(kind, plain))
            remember(offset, kind, plain)
        return pos

    def _inflate(self, view: memoryview, pos: int, size: int, kind: int, offset: int) -> tuple[bytes | None, int]:
        """Return an object of `size` bytes and the position after; (None, 0) while `view` does not hold all of it."""
        limits = self._limits
        if size > limits.object_bytes or (size > limits.meta_bytes and kind in (COMMIT, TREE, TAG)):
            raise _too_large(f"the object at {offset} is too large: {size} bytes", size, limits)
        inflater = zlib.decompressobj()
        bound = pos + size + (size >> 6) + 64
        try:
            plain = inflater.decompress(view[pos:bound], size + 1)
            if not inflater.eof and bound < len(view) and len(plain) <= size:
                bound += size + 65536
                inflater = zlib.decompressobj()
                plain = inflater.decompress(view[pos:bound], size + 1)
        except zlib.error as exc:
            raise PackError(f"the object at {offset} cannot be inflated: {exc}") from None
        if inflater.eof and len(plain) == size:
            return plain, min(bound, len(view)) - len(inflater.unused_data)
        if inflater.eof or len(plain) > size or bound < len(view):
            raise PackError(f"the object at {offset} has not the size it says")
        return None, 0

    def _feed_big(self, big: BigBlob, data: bytes, pos: int) -> int:
        pos, done = big.feed(data, pos)
        self._big = None if done else big
        if done:
            self.ids[-1] = big.oid
            self.crcs[-1] = big.crc
            self.known[BLOB].add(big.oid)
            self.missing[BLOB].discard(big.oid)
        return pos

    def _name(self, kind: int, plain: bytes) -> bytes:
        oid = self._hash.new(b"%b %d\0%b" % (KIND_NAMES[kind], len(plain), plain)).digest()
        self._note(kind, plain, oid)
        return oid

    # -- deltas ------------------------------------------------------------------------------------------------------

    def _wait(self, index: int, base: int | bytes) -> None:
        if isinstance(base, int):
            self._waiting.setdefault(base, []).append(index)
        else:
            self._waiting_ref.setdefault(base, []).append(index)

    def _find_base(self, oid: bytes) -> Found | None:
        """Return a base named by id; None where it may still come in this pack."""
        found = self._cache.get(oid)
        if found is None and not self._links.holds(oid):
            found = self._external(oid)
            if found is not None:
                self.external_bases.add(oid)
                self._cache.put(oid, *found)
        return found

    def _apply(self, base: Found, delta: bytes, offset: int) -> bytes:
        limits = self._limits
        try:
            size = delta_result_size(delta)
        except IndexError:
            raise PackError(f"the delta at {offset} is cut off") from None
        if size > limits.object_bytes or (size > limits.meta_bytes and base[0] != BLOB):
            raise _too_large(f"the delta at {offset} makes an object of {size} bytes", size, limits)
        try:
            pieces = apply_delta(base[1], delta)
        except (ApplyDeltaError, MemoryError) as exc:
            raise PackError(f"the delta at {offset} does not fit its base: {exc}") from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def finish(self) -> None:
        """Resolve the deltas that wait for a base.

        Raises:
            PackError: the pack is cut off, or a delta has no base.
        """
        if not self.checksum and self.total >= 0 and self._rest and self._big is None:
            self._need = 0
            self.feed(b"")
        if not self.checksum:
            raise PackError("the pack is cut off", "fetch again")
        self._links.forget_recent()
        while self._waiting or self._waiting_ref:
            ready = [offset for offset in sorted(self._waiting) if self.ids[self._index_at(offset)]]
            if self._waiting_ref:
                ready += [o for o, oid in zip(self.offsets, self.ids, strict=True) if oid in self._waiting_ref]
            if not ready:
                break
            for offset in ready:
                self._resolve_family(offset)
        for oid in self._waiting_ref:
            raise PackError(f"the base {oid.hex()} of a delta is not in the pack and not here")
        for offset in self._waiting:
            raise PackError(f"the delta base at {offset} depends on itself")

    def _index_at(self, offset: int) -> int:
        index = bisect_left(self.offsets, offset)
        if index == len(self.offsets) or self.offsets[index] != offset:
            raise PackError(f"a delta has its base at {offset}, where no object starts")
        return index

    def _children(self, offset: int, oid: bytes) -> list[int]:
        return self._waiting.pop(offset, []) + self._waiting_ref.pop(oid, [])

    def _resolve_family(self, offset: int) -> None:
        """Resolve the deltas that wait for the object at `offset`, and those that wait for them, deepest first.

        Children share the data of their base. Past the cache's size it is dropped and built again for each, so a
        hostile family cannot fill the memory.
        """
        index = self._index_at(offset)
        pinned = 0
        todo: list[tuple[int, int, Found | None]] = []
        children = self._children(offset, self.ids[index])
        found: Found | None = self._load(offset)
        todo.extend((child, offset, found) for child in children)
        while todo:
            child, base_offset, base = todo.pop()
            if base is None:
                base = self._load(base_offset)
            elif not todo or todo[-1][1] != base_offset:
                pinned -= len(base[1])
            at = self.offsets[child]
            plain = self._apply(base, self._read_at(at)[2], at)
            oid = self.ids[child] = self._name(base[0], plain)
            children = self._children(at, oid)
            if children:
                pinned += len(plain)
                found = (base[0], plain)
                if pinned > 4 * self._limits.cache_bytes:
                    pinned -= len(plain)
                    found = None
                todo.extend((grandchild, at, found) for grandchild in children)
            self._tick()

    def _load(self, offset: int) -> Found:
        """Return the object at `offset`, built from its whole chain where it is not cached."""
        deltas: list[tuple[int, bytes]] = []
        held = 0
        at: int | bytes = offset
        while True:
            found = self._cache.get(at)
            if found is None and isinstance(at, bytes):
                found = self._external(at)
                if found is None and at not in self.ids:
                    raise PackError(f"the base {at.hex()} of a delta is not in the pack and not here")
                if found is None:
                    at = self.offsets[self.ids.index(at)]
                    continue
            if found is None and isinstance(at, int):
                kind, base, plain = self._read_at(at)
                if base is None:
                    found = (kind, plain)
                else:
                    deltas.append((at, plain))
                    at = base
                    held += len(plain)
                    if len(deltas) > _MAX_DEPTH or held > 2 * self._limits.object_bytes:
                        raise PackError(f"the delta chain at {offset} is too deep or too large")
                    continue
            if found is not None:
                break
        for delta_at, delta in reversed(deltas):
            found = (found[0], self._apply(found, delta, delta_at))
            self._tick()
        self._cache.put(offset, *found)
        return found

    def _read_at(self, offset: int) -> tuple[int, int | bytes | None, bytes]:
        """Read one object of the file again. Return its kind, its base, and its (delta) bytes."""
        head = os.pread(self._fd, 4096, offset)
        kind, size, base, pos = read_header(head, 0, offset, self._hash.size)
        if size > self._limits.object_bytes:
            raise _too_large(f"the object at {offset} is too large: {size} bytes", size, self._limits)
        bound = pos + size + (size >> 6) + 64
        data = head if bound <= len(head) else os.pread(self._fd, bound, offset)
        plain, _ = self._inflate(memoryview(data), pos, size, kind, offset)
        if plain is None:
            data = os.pread(self._fd, bound + size + 65536, offset)
            plain, _ = self._inflate(memoryview(data), pos, size, kind, offset)
        if plain is None:
            raise PackError(f"the object at {offset} changed while it was read")
        return kind, base, plain
