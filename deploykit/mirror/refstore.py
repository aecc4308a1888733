"""The refs on disk: one `packed-refs` file, replaced whole, so that many refs change in one durable step.

Rules:

* The caller holds the mirror's lock. A change is compare-and-set against what the file holds at that moment.
* A loose ref (a person ran git here) is read as git reads it, and goes when refs are next written.
* HEAD is symbolic.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from deploykit.errors import InvalidName, LockBusy, MirrorCorrupt
from deploykit.mirror.model import RefChange
from deploykit.names import ObjectId, RefName, is_zero, parse_object_id
from deploykit.system.durable import replace_file, sync_directory

_HEADER: Final = "# pack-refs with: peeled fully-peeled sorted \n"

Refs = dict[RefName, ObjectId]


class RefStore:
    """The refs of the bare repository at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._packed = path / "packed-refs"

    def read(self) -> Refs:
        """Return all refs below `refs/`, by name.

        Raises:
            MirrorCorrupt: the file is damaged.
        """
        refs = dict(self._read_packed()[0])
        refs.update(self._read_loose())
        return refs

    def read_one(self, ref: RefName) -> ObjectId | None:
        """Return one ref's id, or None where there is no such ref."""
        loose = self._read_loose_file(self._path / ref) if (self._path / ref).is_file() else None
        return loose or self.read().get(ref)

    @property
    def head(self) -> RefName | None:
        """The branch that HEAD points to, or None."""
        try:
            text = (self._path / "HEAD").read_text("utf-8", "surrogateescape")
        except FileNotFoundError:
            return None
        return RefName(text[5:].strip()) if text.startswith("ref: ") else None

    def set_head(self, ref: RefName) -> None:
        """Point HEAD to a branch, which need not be there yet."""
        if self.head != ref:
            replace_file(self._path / "HEAD", f"ref: {ref}\n".encode("utf-8", "surrogateescape"))

    def apply(self, changes: Iterable[RefChange], peel: Callable[[ObjectId], ObjectId | None]) -> None:
        """Make all changes, or none.

        Args:
            changes: each is made only if the ref is still at its old id.
            peel: what an annotated tag stands for in the end; None for any other object.

        Raises:
            LockBusy: a ref is not where it was: another process changed it.
        """
        changes = tuple(changes)
        if not changes:
            return
        packed, peeled, complete = self._read_packed()
        loose = self._read_loose()
        refs = {**packed, **loose}
        unsure = set(loose) if complete else set(refs)
        for ref in unsure:
            peeled.pop(ref, None)
            _note(peeled, ref, peel(refs[ref]))
        for change in changes:
            held = refs.get(change.ref)
            if held != (None if is_zero(change.old) else change.old):
                raise LockBusy(f"{change.ref} in {self._path} was changed by another process", "fetch again")
            peeled.pop(change.ref, None)
            if is_zero(change.new):
                del refs[change.ref]
                continue
            refs[change.ref] = change.new
            _note(peeled, change.ref, peel(change.new))
        replace_file(self._packed, (part.encode("utf-8", "surrogateescape") for part in _lines(refs, peeled)))
        if loose:
            self._drop_loose(loose)

    def pack(self) -> None:
        """Take loose refs (somebody ran git here) into `packed-refs`."""
        loose = self._read_loose()
        if not loose:
            return
        packed, peeled, _ = self._read_packed()
        kept = {ref: oid for ref, oid in peeled.items() if loose.get(ref, packed.get(ref)) == packed.get(ref)}
        # Without `fully-peeled` git looks for itself what a tag stands for; the next change of the ref adds it again.
        lines = "".join(_lines({**packed, **loose}, kept)).replace(_HEADER, "# pack-refs with: sorted \n", 1)
        replace_file(self._packed, lines.encode("utf-8", "surrogateescape"))
        self._drop_loose(loose)

    # -- files -------------------------------------------------------------------------------------------------------

    def _read_packed(self) -> tuple[Refs, Refs, bool]:
        """Return the refs, what the annotated tags among them stand for, and whether the file has that of every tag."""
        try:
            text = self._packed.read_bytes().decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            return {}, {}, True
        refs: Refs = {}
        peeled: Refs = {}
        name = RefName("")
        for line in text.split("\n"):
            first = line[:1]
            if first in ("", "#"):
                continue
            if first == "^":
                peeled[name] = ObjectId(line[1:])
                continue
            oid, _, found = line.partition(" ")
            if len(oid) not in (40, 64) or not found.startswith("refs/"):
                raise MirrorCorrupt(
                    f"{self._packed} is damaged: {line[:60]!a}",
                    "run `deploykit mirror check`",
                    repository=str(self._path),
                )
            name = RefName(found)
            refs[name] = ObjectId(oid)
        return refs, peeled, " fully-peeled " in text.partition("\n")[0]

    def _read_loose(self) -> Refs:
        refs: Refs = {}
        todo = [(str(self._path / "refs"), "refs")]
        while todo:
            directory, prefix = todo.pop()
            try:
                entries = list(os.scandir(directory))
            except FileNotFoundError:
                continue
            for entry in entries:
                name = f"{prefix}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    todo.append((entry.path, name))
                elif entry.is_file(follow_symlinks=False) and not name.endswith(".lock"):
                    oid = self._read_loose_file(Path(entry.path))
                    if oid is not None:
                        refs[RefName(name)] = oid
        return refs

    @staticmethod
    def _read_loose_file(path: Path) -> ObjectId | None:
        try:
            return parse_object_id(path.read_bytes()[:200].decode("ascii", "replace").strip())
        except (InvalidName, OSError):
            return None  # a symbolic or a torn loose ref does not count

    def _drop_loose(self, loose: Iterable[RefName]) -> None:
        """Remove loose files that `packed-refs` now holds, and the directories they leave empty."""
        for ref in loose:
            path = self._path / ref
            path.unlink(missing_ok=True)
            sync_directory(path.parent)
            parent = path.parent
            while parent.parent != self._path / "refs" and parent != self._path / "refs":
                try:
                    parent.rmdir()
                except OSError:
                    break
                parent = parent.parent


def _note(peeled: Refs, ref: RefName, target: ObjectId | None) -> None:
    if target is not None:
        peeled[ref] = target


def _lines(refs: Mapping[RefName, ObjectId], peeled: Mapping[RefName, ObjectId]) -> Iterator[str]:
    yield _HEADER
    parts: list[str] = []
    for ref in sorted(refs, key=lambda name: name.encode("utf-8", "surrogateescape")):
        target = peeled.get(ref)
        parts.append(f"{refs[ref]} {ref}\n^{target}\n" if target else f"{refs[ref]} {ref}\n")
    yield "".join(parts)
