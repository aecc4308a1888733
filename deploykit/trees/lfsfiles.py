"""The files of a tree that are contents of Git LFS objects, found before one of them is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from deploykit.git.objectreader import ObjectReader
from deploykit.trees.entries import TreeWalk
from deploykit.trees.lfs import LfsFile
from deploykit.trees.rules import TreeRules
from deploykit.trees.writer import WriteOptions, contents_of

if TYPE_CHECKING:
    from dulwich.object_store import BaseObjectStore

    from deploykit.names import ObjectId


def list_lfs_files(
    store: BaseObjectStore, tree: ObjectId, rules: TreeRules, options: WriteOptions
) -> Iterator[LfsFile]:
    """Yield each file of a tree that `options` have written from an object.

    Raises:
        TreeError: the tree cannot be read, or a pointer in it cannot be followed.
    """
    if not options.lfs:
        return
    with ObjectReader(store, max_bytes=rules.max_file_bytes) as reader:
        walk = TreeWalk(reader, rules)
        directories = list(walk.walk(walk.root(tree), b"", 0))
        contents = contents_of(reader, walk, rules, options, [e for d in directories for e in d.entries])
        for directory in contents.without_ignored(directories):
            for entry in directory.entries:
                found = contents.lfs_file(entry)
                if found is not None:
                    yield found
