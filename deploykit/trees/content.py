"""The bytes to write for a file of a tree: as stored, or, by setting, as `git archive` would write them.

Rules:

* A file that git would convert on a checkout (filters, line ends, `$Id$`, encodings) is refused by name, unless the
  settings ask for the stored bytes.
* A pointer file of Git LFS is recognised by its content too: its attributes may lie outside the tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from deploykit.errors import TreeError
from deploykit.git.objectformat import BLOB, blob_id
from deploykit.git.objectreader import ObjectReader
from deploykit.trees.attributes import TreeAttributes, conversions, would_change
from deploykit.trees.entries import EXECUTABLE, FILE, TreeDirectory, TreeEntry, TreeWalk
from deploykit.trees.names import shown
from deploykit.trees.rules import TreeRules

if TYPE_CHECKING:
    from deploykit.trees.subst import Substitution

_LFS: Final = b"version https://git-lfs.github.com/spec/"
_LFS_MAX: Final = 1024


def attributes_of(reader: ObjectReader, walk: TreeWalk, paths: Iterable[TreeEntry]) -> TreeAttributes:
    """Read the `.gitattributes` among `paths`, and those above the walk's root."""
    files = [
        (walk.full_path(entry.path).rpartition(b"/")[0], reader.read(entry.oid, BLOB))
        for entry in paths
        if entry.path.endswith(b".gitattributes")
        and entry.path.rpartition(b"/")[2] == b".gitattributes"
        and entry.mode in (FILE, EXECUTABLE)
    ]
    files += [(path, reader.read(oid, BLOB)) for path, oid in walk.attributes_above]
    return TreeAttributes(files)


class FileContents:
    """The contents of the files of one tree.

    Args:
        attributes: of the tree.
        walk: the walk that made the entries; attributes apply to paths from the repository's own root.
        substitution: for `export-subst`.
    """

    def __init__(
        self,
        reader: ObjectReader,
        rules: TreeRules,
        attributes: TreeAttributes,
        walk: TreeWalk,
        substitution: Substitution | None = None,
    ) -> None:
        self._reader = reader
        self._rules = rules
        self._attributes = attributes
        self._relevant = attributes.are_relevant(export=rules.export_attributes)
        self._walk = walk
        self._substitution = substitution
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

    def of(self, entry: TreeEntry) -> tuple[bytes | Iterator[bytes], bytes]:
        """Return the content to write for a file, and its binary git id.

        Raises:
            TreeError: git would write something else than is stored, or the sum of all files passes the cap.
        """
        content, oid = self._reader.blob(entry.oid)
        if self._relevant:
            content, oid = self._attributed(entry, content, oid)
        if not isinstance(content, bytes):
            return self._counted(content), oid
        if len(content) < _LFS_MAX and content.startswith(_LFS) and "filter" not in self._rules.raw_attributes:
            raise TreeError(
                f"{shown(entry.path)} is kept in Git LFS, which is not fetched",
                'list "filter" in raw_attributes to write the pointer file as it is stored',
            )
        self._count(len(content))
        return content, oid

    def _attributed(
        self, entry: TreeEntry, content: bytes | Iterator[bytes], oid: bytes
    ) -> tuple[bytes | Iterator[bytes], bytes]:
        found = self._attributes.of(self._walk.full_path(entry.path))
        for conversion in sorted(conversions(found) - set(self._rules.raw_attributes)):
            automatic = found.get(b"text") == b"auto"
            if not isinstance(content, bytes) or would_change(conversion, content, automatic=automatic):
                raise TreeError(
                    f"git would write {shown(entry.path)} other than it is stored (attribute {conversion})",
                    f'list "{conversion}" in raw_attributes to write it as it is stored',
                )
        if self._substitution is not None and found.get(b"export-subst") is True:
            whole = content if isinstance(content, bytes) else b"".join(content)
            content = self._substitution.expand(whole)
            oid = blob_id(content, self._reader.oid_length)
        return content, oid

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
