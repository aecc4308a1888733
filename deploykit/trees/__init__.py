"""A git tree as files on disk: validated, written once, provable by its manifest, activated by a rename.

`write_tree` makes a new directory, `patch_tree` turns one we wrote into another tree, `compare` checks either against
its `Manifest`, and `swap_symlink` activates it. Nothing here knows of sites, releases or branches.
"""

from typing import TYPE_CHECKING

from deploykit.trees.activate import check_link, read_link, remove_symlink, swap_symlink
from deploykit.trees.diff import TreeDiff, list_changes
from deploykit.trees.entries import TreeEntry, list_directory, list_tree, walk_tree
from deploykit.trees.manifest import Manifest
from deploykit.trees.patch import CannotPatch, PatchResult, patch_tree
from deploykit.trees.rules import TreeRules
from deploykit.trees.verify import Differences, compare, retake_manifest
from deploykit.trees.writer import WriteOptions, write_tree

if TYPE_CHECKING:
    from dulwich.object_store import BaseObjectStore as ObjectStore
else:
    ObjectStore = object

__all__ = [
    "CannotPatch",
    "Differences",
    "Manifest",
    "ObjectStore",
    "PatchResult",
    "TreeDiff",
    "TreeEntry",
    "TreeRules",
    "WriteOptions",
    "check_link",
    "compare",
    "list_changes",
    "list_directory",
    "list_tree",
    "patch_tree",
    "read_link",
    "remove_symlink",
    "retake_manifest",
    "swap_symlink",
    "walk_tree",
    "write_tree",
]
