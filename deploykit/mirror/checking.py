"""Find damage in a mirror, and replace a damaged one.

Rules:

* A check reads every byte, trusts no index and changes nothing.
* A new mirror is cloned beside the damaged one and takes its place whole.
* The damaged one stays under another name until the next repair, for a person to look at.
"""

from __future__ import annotations

import os
import shutil
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import DeploykitError, MirrorCorrupt, PackError
from deploykit.git.objectformat import COMMIT, KIND_CODES, KIND_NAMES, TAG, HashKind
from deploykit.git.objectlinks import ObjectLinks
from deploykit.git.packindex import INDEX_MAGIC, index_v1, index_v2
from deploykit.git.packscanner import PackScanner, ScanLimits
from deploykit.mirror import layout
from deploykit.mirror.refstore import RefStore
from deploykit.system.durable import sync_directory

_PIECE: Final = 1 << 20
#: Problems that are listed.
MOST_PROBLEMS: Final = 50


@attrs.frozen(kw_only=True, slots=True)
class CheckReport:
    """What a check found. `problems` is empty for a sound mirror; it holds at most fifty.

    Args:
        lfs_objects: that the mirror holds.
    """

    problems: tuple[str, ...] = ()
    objects: int = 0
    lfs_objects: int = 0
    packs: int = 0
    refs: int = 0
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not self.problems


class _Check:
    def __init__(self, path: Path, tick: Callable[[], None]) -> None:
        self._path = path
        self._tick = tick
        self.problems: list[str] = []
        self.known: dict[int, set[bytes]] = {kind: set() for kind in KIND_NAMES}
        self.missing: dict[int, set[bytes]] = {kind: set() for kind in KIND_NAMES}
        self.packs = 0

    def run(self) -> int:
        """Look at everything; return the number of refs."""
        try:
            hash_kind = layout.read_format(self._path)
        except MirrorCorrupt as exc:
            self.problems.append(exc.problem)
            return 0
        packs = self._path / "objects" / "pack"
        for pack in sorted(packs.glob("*.pack")):
            self._pack(pack, hash_kind)
        for index in sorted(packs.glob("*.idx")):
            if not index.with_suffix(".pack").exists():
                self.problems.append(f"{index.name} has no pack")
        for directory in (self._path / "objects").glob("[0-9a-f][0-9a-f]"):
            for file in directory.iterdir():
                if not file.name.startswith("tmp_obj_"):  # a git that was killed left it, and no git reads it
                    self._loose(file, hash_kind)
        self._links()
        return self._refs()

    def _pack(self, path: Path, hash_kind: HashKind) -> None:
        index = path.with_suffix(".idx")
        if not index.exists():
            return  # an interrupted step left it; git does not read it without its index
        self.packs += 1
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            scanner = PackScanner(hash_kind, fd, limits=ScanLimits(), tick=self._tick)
            at = 0
            while data := os.pread(fd, _PIECE, at):
                scanner.feed(data)
                at += len(data)
            scanner.finish()
            found = index.read_bytes()
            if found.startswith(INDEX_MAGIC):
                expected = b"".join(index_v2(scanner.ids, scanner.crcs, scanner.offsets, scanner.checksum))
            else:  # another git made this repository
                expected = b"".join(index_v1(scanner.ids, scanner.offsets, scanner.checksum))
        except PackError as exc:
            self.problems.append(f"{path.name}: {exc.problem}")
            return
        finally:
            os.close(fd)
        if found != expected + hash_kind.new(expected).digest():
            self.problems.append(f"{index.name} does not match its pack")
        for kind in KIND_NAMES:
            self.known[kind] |= scanner.known[kind]
            self.missing[kind] |= scanner.missing[kind]

    def _loose(self, path: Path, hash_kind: HashKind) -> None:
        try:
            plain = zlib.decompress(path.read_bytes())
            head, _, body = plain.partition(b"\0")
            oid = hash_kind.new(plain).digest()
            ObjectLinks(hash_kind, self.known, self.missing).note(KIND_CODES[head.split(b" ")[0]], body, oid)
        except (KeyError, zlib.error, PackError):
            oid = b""
        if oid.hex() != path.parent.name + path.name:
            self.problems.append(f"object {path.parent.name}{path.name} is damaged")

    def _links(self) -> None:
        for kind, ids in self.missing.items():
            for oid in sorted(ids - self.known[kind]):
                self.problems.append(f"{KIND_NAMES[kind].decode()} {oid.hex()} is missing")

    def _refs(self) -> int:
        try:
            refs = RefStore(self._path).read()
        except MirrorCorrupt as exc:
            self.problems.append(exc.problem)
            return 0
        for ref, oid in refs.items():
            raw = bytes.fromhex(oid)
            kinds = (COMMIT,) if ref.startswith("refs/heads/") else (COMMIT, TAG, *KIND_NAMES)
            if not any(raw in self.known[kind] for kind in kinds):
                self.problems.append(f"{ref!a} points to {oid}, which is missing")
        return len(refs)


def check(path: Path, tick: Callable[[], None] = lambda: None) -> CheckReport:
    """Read everything in the mirror at `path` and return what is wrong.

    Raises:
        MirrorError: the disk cannot be read.
    """
    started = time.monotonic()
    work = _Check(path, tick)
    try:
        refs = work.run()
    except OSError as exc:
        raise layout.disk_error(exc, path) from exc
    return CheckReport(
        problems=tuple(work.problems[:MOST_PROBLEMS]),
        objects=sum(map(len, work.known.values())),
        packs=work.packs,
        refs=refs,
        seconds=time.monotonic() - started,
    )


def replace(path: Path, clone: Callable[[Path], None], *, wait: float) -> Path | None:
    """Let `clone` make a new mirror, and put it in the place of the one at `path`.

    Returns:
        Where the old one is now; None when there was none.

    Raises:
        DeploykitError: the clone failed; the old mirror stays.
    """
    fresh = path.with_name(f".{path.name}.fresh")
    aside = path.with_name(f"{path.name}.damaged")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        clone(fresh)
    except DeploykitError:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    if not path.exists():
        fresh.rename(path)
        sync_directory(path.parent)
        return None
    with layout.locked(path, wait):
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        fresh.rename(path)
        sync_directory(path.parent)
    return aside
