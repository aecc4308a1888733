"""How a git tree is written as files: what releases and checkouts have in common."""

from __future__ import annotations

from typing import Literal

import attrs


@attrs.frozen(kw_only=True, slots=True)
class TreeSettings:
    """How a tree is written. In TOML these stand beside the other settings of a site's `release`, or of a checkout.

    Args:
        symlinks: `inside` refuses a link that leaves the tree, `any` writes it, `refuse` allows none.
        submodules: `refuse`; `skip`: an empty directory in its place; `mirror`: written from the mirror of a repository
            in the settings that has its address, or that `[submodules]` names for it.
        submodule_depth: with `mirror`, how many submodules may be inside each other.
        raw_attributes: which of `filter`, `eol`, `ident`, `working-tree-encoding` may be ignored.
        max_entries, max_bytes: what a tree may hold at most.
        umask: bits taken from the modes of what is written; the process's own when absent.
        owner: `user` or `user:group` for everything written; needs root.
        durable: nothing is reported done that a power cut could take away.
    """

    symlinks: Literal["inside", "any", "refuse"] = "inside"
    submodules: Literal["refuse", "skip", "mirror"] = "refuse"
    submodule_depth: int = 4
    raw_attributes: tuple[Literal["filter", "eol", "ident", "working-tree-encoding"], ...] = ()
    max_entries: int = 250_000
    max_bytes: int = 8 << 30
    umask: int | None = None
    owner: str = ""
    durable: bool = True

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well."""
        found = []
        if self.umask is not None and not 0 <= self.umask <= 0o777:
            found.append(f"umask: expected 0 to 0o777, not {self.umask:#o}")
        if not 1 <= self.submodule_depth <= 16:
            found.append(f"submodule_depth: expected 1 to 16, not {self.submodule_depth}")
        return tuple(found)
