"""The files of a tree that are contents of Git LFS objects, found before one of them is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from deploykit.git.objectreader import ObjectReader
from deploykit.names import ObjectId
from deploykit.trees.content import FileContents
from deploykit.trees.entries import TreeEntry, TreeWalk
from deploykit.trees.lfs import LfsContent, LfsFile
from deploykit.trees.manifest import Manifest
from deploykit.trees.patch import CannotPatch, attributes_kept, diff_to_patch
from deploykit.trees.rules import TreeRules
from deploykit.trees.writer import WriteOptions, contents_of

if TYPE_CHECKING:
    from dulwich.object_store import BaseObjectStore


def list_lfs_files(
    store: BaseObjectStore,
    tree: ObjectId,
    rules: TreeRules,
    options: WriteOptions,
    patched: Manifest | None = None,
) -> Iterator[LfsFile]:
    """Yield each file that is to be written from an object.

    Args:
        options: with which the tree is written.
        patched: of the directory that is turned into the tree, if one is: then only what differs is looked at.

    Raises:
        TreeError: the tree cannot be read, or a pointer in it cannot be followed.
    """
    if not options.lfs:
        return
    with ObjectReader(store, max_bytes=rules.max_file_bytes) as reader:
        contents, entries = _to_write(reader, tree, rules, options, patched)
        for entry in entries:
            found = contents.lfs_file(entry)
            if found is not None:
                yield found


def object_id(file: LfsFile, options: WriteOptions, oid_length: int) -> str:
    """Return the git id (hex, of that many bytes) of an object's content; empty where it is not there.

    Raises:
        TreeDamaged: it is not what its pointer says.
    """
    path = options.lfs[file.root].path(file.pointer)
    if path is None:
        return ""
    content = LfsContent(file.path, file.pointer, path, oid_length)
    for _ in content:
        pass
    return content.oid.hex()


def _to_write(
    reader: ObjectReader, tree: ObjectId, rules: TreeRules, options: WriteOptions, patched: Manifest | None
) -> tuple[FileContents, Iterable[TreeEntry]]:
    if patched is not None:
        walk = TreeWalk(reader, rules)
        try:
            diff = diff_to_patch(reader, walk, tree, patched, rules, options)
        except CannotPatch:
            pass  # it will be written whole
        else:
            attributes = attributes_kept(reader, tree, patched, rules)
            return contents_of(reader, walk, rules, options, attributes), (*diff.changed, *diff.added)
    walk = TreeWalk(reader, rules)
    directories = list(walk.walk(walk.root(tree), b"", 0))
    contents = contents_of(reader, walk, rules, options, [e for d in directories for e in d.entries])
    return contents, (e for d in contents.without_ignored(directories) for e in d.entries)
