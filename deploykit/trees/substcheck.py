"""Whether `export-subst` can be honoured in a tree, found out before anything is written.

Rules: the files are those that a release would hold, and they are expanded as for writing; nothing is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploykit.git.objectreader import ObjectReader
from deploykit.trees.entries import TreeWalk
from deploykit.trees.rules import TreeRules
from deploykit.trees.writer import WriteOptions, contents_of

if TYPE_CHECKING:
    from dulwich.object_store import BaseObjectStore

    from deploykit.names import ObjectId


def check_substitutions(store: BaseObjectStore, tree: ObjectId, rules: TreeRules, options: WriteOptions) -> None:
    """Refuse a tree that has a file with a placeholder which is not supported.

    Raises:
        TreeError: naming the file and the placeholder; or the tree cannot be read.
    """
    if not rules.export_attributes:
        return
    with ObjectReader(store, max_bytes=rules.max_file_bytes) as reader:
        walk = TreeWalk(reader, rules)
        directories = list(walk.walk(walk.root(tree), b"", 0))
        contents = contents_of(reader, walk, rules, options, [e for d in directories for e in d.entries])
        for directory in contents.without_ignored(directories):
            for entry in directory.entries:
                contents.check_substitution(entry)


__all__ = ["check_substitutions"]
