"""What is written for a file of a tree: what is stored, or, by setting, what `git archive` would make of it.

What git would convert on a checkout (filters, line ends, `$Id$`, encodings) is refused by name, unless the settings
say that the stored bytes are wanted. A pointer file of Git LFS is known by its content too: its attributes may lie
outside the tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from deploykit.errors import TreeError
from deploykit.git.objectformat import BLOB, blob_id
from deploykit.git.objectreader import ObjectReader
from deploykit.trees.attributes import Attributes, conversions, would_change
from deploykit.trees.entries import EXECUTABLE, FILE, TreeDirectory, TreeEntry, TreeWalk
from deploykit.trees.names import shown
from deploykit.trees.rules import TreeRules

if TYPE_CHECKING:
    from deploykit.trees.subst import Substitution

_LFS: Final = b"version https://git-lfs.github.com/spec/"
_LFS_MAX: Final = 1024


def attributes_of(reader: ObjectReader, walk: TreeWalk, paths: Iterable[TreeEntry]) -> Attributes:
    """Read the `.gitattributes` among `paths`, and those above the walk's root."""
    files = [
        (walk.above(entry.path).rpartition(b"/")[0], reader.read(entry.oid, BLOB))
        for entry in paths
        if entry.path.endswith(b".gitattributes")
        and entry.path.rpartition(b"/")[2] == b".gitattributes"
        and entry.mode in (FILE, EXECUTABLE)
    ]
    files += [(path, reader.read(oid, BLOB)) for path, oid in walk.attributes_above]
    return Attributes(files)


class Contents:
    """Turns entries into bytes.

    Args:
        attributes: the tree's.
        above: the way from the repository's root to the root written here, for attributes speak of whole paths.
        substitution: for `export-subst`.
    """

    def __init__(
        self,
        reader: ObjectReader,
        rules: TreeRules,
        attributes: Attributes,
        walk: TreeWalk,
        substitution: Substitution | None = None,
    ) -> None:
        self._reader = reader
        self._rules = rules
        self._attributes = attributes
        self._matter = attributes.matter(export=rules.export_attributes)
        self._walk = walk
        self._substitution = substitution
        self._total = 0

    def kept(self, directories: list[TreeDirectory]) -> list[TreeDirectory]:
        """Leave out what has `export-ignore`, where the rules honour it. A directory left empty stays, as in git."""
        if not self._rules.export_attributes or not self._matter:
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
        return self._attributes.of(self._walk.above(path), directory=directory).get(b"export-ignore") is True

    def of(self, entry: TreeEntry) -> tuple[bytes | Iterator[bytes], bytes]:
        """Return what to write for a file, and the raw git id of that.

        Raises:
            TreeError: git would write something else than is stored, or the sum of all files passes the cap.
        """
        content, oid = self._reader.blob(entry.oid)
        if self._matter:
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
        found = self._attributes.of(self._walk.above(entry.path))
        for conversion in sorted(conversions(found) - set(self._rules.raw_attributes)):
            automatic = found.get(b"text") == b"auto"
            if not isinstance(content, bytes) or would_change(conversion, content, automatic=automatic):
                raise TreeError(
                    f"git would write {shown(entry.path)} otherwise than it is stored (attribute {conversion})",
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
