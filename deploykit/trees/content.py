"""The bytes to write for a file of a tree: as stored, or, by setting, as `git archive` would write them.

Rules:

* A file that git would convert on a checkout (filters, line ends, `$Id$`, encodings) is refused by name, unless the
  settings ask for the stored bytes.
* Where the objects of Git LFS are given, their contents are written in place of pointers (`lfs`). Where they are not, a
  pointer is refused, also one that only its content shows: its attributes may lie outside the tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from deploykit.errors import LfsMissing, TreeError
from deploykit.git.objectformat import BLOB, blob_id
from deploykit.git.objectreader import ObjectReader
from deploykit.trees.attributes import TreeAttributes, Value, conversions, would_change
from deploykit.trees.entries import EXECUTABLE, FILE, TreeDirectory, TreeEntry, TreeWalk
from deploykit.trees.lfs import LfsContent, LfsFile, LfsObjects, LfsPlaces, looks_like_pointer, stored_pointer
from deploykit.trees.names import shown
from deploykit.trees.rules import TreeRules

if TYPE_CHECKING:
    from deploykit.git.lfspointer import LfsPointer
    from deploykit.trees.subst import Substitution

_NO_OBJECTS: Final[LfsPlaces] = MappingProxyType({})


def attributes_of(
    reader: ObjectReader, walk: TreeWalk, paths: Iterable[TreeEntry], roots: frozenset[bytes] = frozenset()
) -> TreeAttributes:
    """Read the `.gitattributes` among `paths`, and those above the walk's root.

    Args:
        roots: of other repositories in the tree, relative to its own root.
    """
    files = [
        (walk.full_path(entry.path).rpartition(b"/")[0], reader.read(entry.oid, BLOB))
        for entry in paths
        if entry.path.endswith(b".gitattributes")
        and entry.path.rpartition(b"/")[2] == b".gitattributes"
        and entry.mode in (FILE, EXECUTABLE)
    ]
    files += [(path, reader.read(oid, BLOB)) for path, oid in walk.attributes_above]
    return TreeAttributes(files, roots)


class FileContents:
    """The contents of the files of one tree.

    Args:
        attributes: of the tree.
        walk: the walk that made the entries; attributes apply to paths from the repository's own root.
        substitutions: for `export-subst`, by the root of the repository that a file is of.
        lfs: the objects of Git LFS.
    """

    def __init__(
        self,
        reader: ObjectReader,
        rules: TreeRules,
        attributes: TreeAttributes,
        walk: TreeWalk,
        substitutions: Mapping[bytes, Substitution] | None = None,
        lfs: LfsPlaces = _NO_OBJECTS,
    ) -> None:
        self._reader = reader
        self._rules = rules
        self._attributes = attributes
        self._relevant = attributes.are_relevant(export=rules.export_attributes)
        self._walk = walk
        self._substitutions = substitutions or {}
        self._lfs = lfs
        self._total = 0

    def without_ignored(self, directories: list[TreeDirectory]) -> list[TreeDirectory]:
        """Return the directories without `export-ignore` entries, if the rules honour it. Empty ones stay."""
        if not self._rules.export_attributes or not self._relevant:
            return directories
        ignored: set[bytes] = set()
        kept: list[TreeDirectory] = []
        for directory in directories:
            parent = directory.path.rpartition(b"/")[0]
            if directory.path and (parent in ignored or self._ignores(directory.path, directory=True)):
                ignored.add(directory.path)
                continue
            entries = [e for e in directory.entries if not self._ignores(e.path, directory=False)]
            kept.append(TreeDirectory(directory.path, entries))
        return kept

    def _ignores(self, path: bytes, *, directory: bool) -> bool:
        return self._attributes.of(self._walk.full_path(path), directory=directory).get(b"export-ignore") is True

    def lfs_file(self, entry: TreeEntry) -> LfsFile | None:
        """Return the object that a file is the content of; None where what is stored is its content.

        Raises:
            TreeError: it looks like a pointer, and is none that can be followed; or the stored file cannot be read.
        """
        if not self._lfs or not self._relevant or entry.mode not in (FILE, EXECUTABLE):
            return None
        path = self._walk.full_path(entry.path)
        if not self._is_filtered(path, self._attributes.of(path)):
            return None
        pointer = stored_pointer(entry.path, self._reader.blob(entry.oid)[0])
        return LfsFile(entry.path, self._attributes.root_of(path), pointer) if pointer is not None else None

    def of(self, entry: TreeEntry) -> tuple[bytes | Iterator[bytes] | LfsContent, bytes]:
        """Return the content to write for a file, and its binary git id; that of an `LfsContent` it has itself.

        Raises:
            TreeError: git would write something else than is stored, or the sum of all files passes the cap.
        """
        stored, oid = self._reader.blob(entry.oid)
        content = stored if not self._relevant else self._attributed(entry, stored)
        if isinstance(content, LfsContent):
            self._count(content.size)
        elif not isinstance(content, bytes):
            content = self._counted(content)
        else:
            if looks_like_pointer(content) and self._objects(self._walk.full_path(entry.path)) is None:
                self._refuse_pointer(entry)
            self._count(len(content))
            if content is not stored:
                oid = blob_id(content, self._reader.oid_length)
        return content, oid

    def _attributed(self, entry: TreeEntry, stored: bytes | Iterator[bytes]) -> bytes | Iterator[bytes] | LfsContent:
        path = self._walk.full_path(entry.path)
        found = self._attributes.of(path)
        changing = conversions(found) - set(self._rules.raw_attributes)
        if self._is_filtered(path, found):
            pointer = stored_pointer(entry.path, stored)
            if pointer is not None:
                return self._object(entry, path, pointer)
            changing -= {"filter"}
        for conversion in sorted(changing):
            automatic = found.get(b"text") == b"auto"
            if not isinstance(stored, bytes) or would_change(conversion, stored, automatic=automatic):
                if looks_like_pointer(stored):
                    self._refuse_pointer(entry)
                raise TreeError(
                    f"git would write {shown(entry.path)} other than it is stored (attribute {conversion})",
                    f'list "{conversion}" in raw_attributes to write it as it is stored',
                )
        if self._substitutions and found.get(b"export-subst") is True:
            whole = stored if isinstance(stored, bytes) else b"".join(stored)
            return self._substitutions[self._attributes.root_of(path)].expand(whole)
        return stored

    def _is_filtered(self, path: bytes, attributes: Mapping[bytes, Value]) -> bool:
        """Return whether a pointer at a path stands for an object whose place is known."""
        return attributes.get(b"filter") == b"lfs" and self._objects(path) is not None

    def _objects(self, path: bytes) -> LfsObjects | None:
        return self._lfs.get(self._attributes.root_of(path)) if self._lfs else None

    def _object(self, entry: TreeEntry, path: bytes, pointer: LfsPointer) -> LfsContent:
        if pointer.size > self._rules.max_file_bytes:
            raise TreeError(
                f"{shown(entry.path)} has {pointer.size} bytes; {self._rules.max_file_bytes} are allowed",
                "raise max_file_bytes if the repository is to be trusted",
            )
        objects = self._objects(path)
        file = objects.path(pointer) if objects is not None else None
        if file is None:
            raise LfsMissing(
                f"the Git LFS object {pointer.oid} of {shown(entry.path)} is missing", "fetch the mirror again"
            )
        return LfsContent(entry.path, pointer, file, self._reader.oid_length)

    def _refuse_pointer(self, entry: TreeEntry) -> None:
        if "filter" not in self._rules.raw_attributes:
            raise TreeError(
                f"{shown(entry.path)} is kept in Git LFS, which is not fetched",
                'set lfs = true for its repository, or list "filter" in raw_attributes to write the pointer file as it '
                "is stored",
            )

    def _counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._count(len(piece))
            yield piece

    def _count(self, size: int) -> None:
        self._total += size
        if self._total > self._rules.max_bytes:
            raise TreeError(
                f"the files of the tree have more than {self._rules.max_bytes} bytes together",
                "raise max_bytes if the repository is to be trusted",
            )
