"""Limits and policies for writing a tree, as one value.

The defaults refuse every file that git would write differently. Sizes are bytes.
"""

from __future__ import annotations

from typing import Final, Literal

import attrs

from deploykit.settings.tree import TreeSettings

SymlinkPolicy = Literal["inside", "any", "refuse"]
SubmodulePolicy = Literal["refuse", "skip", "mirror"]

#: Attributes that make git write other bytes than are stored. The stored bytes are written, or the file is refused.
CONVERTING: Final = ("filter", "eol", "ident", "working-tree-encoding")


@attrs.frozen(kw_only=True, slots=True)
class TreeRules:
    """What a tree may hold and how it is written.

    Args:
        max_entries: files, links and directories together; a tree of 11 objects can describe 10^10 files.
        max_depth: directories inside directories.
        max_bytes: the sum of all files.
        max_file_bytes: one file, and every delta base on the way to it.
        symlinks: `inside` refuses a link that leaves the tree, `any` writes it, `refuse` allows no link at all.
        submodules: `refuse`; `skip`: an empty directory stands there, as after git's own checkout; `mirror`: the tree
            that is given has them in their places already, and one that has not is refused.
        raw_attributes: which of `filter`, `eol`, `ident`, `working-tree-encoding` may be ignored: files are then
            written as stored (for LFS: the pointer). A file that has one not listed here is refused.
        export_attributes: honour `export-ignore` and `export-subst`, as `git archive` does and a checkout does not.
        umask: bits taken from the modes; None takes the process's own.
        subdirectory: only this directory of the tree, as the root.
    """

    max_entries: int = 250_000
    max_depth: int = 64
    max_bytes: int = 8 * 1024**3
    max_file_bytes: int = 1024**3
    symlinks: SymlinkPolicy = "inside"
    submodules: SubmodulePolicy = "refuse"
    raw_attributes: tuple[str, ...] = ()
    export_attributes: bool = False
    umask: int | None = None
    subdirectory: str = ""


def rules_of(settings: TreeSettings) -> TreeRules:
    """Return the rules that every tree's settings hold; a site adds its own."""
    return TreeRules(
        max_entries=settings.max_entries,
        max_bytes=settings.max_bytes,
        symlinks=settings.symlinks,
        submodules=settings.submodules,
        raw_attributes=settings.raw_attributes,
        umask=settings.umask,
    )
