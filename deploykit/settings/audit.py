"""The audit log: who asked for what, and what was decided."""

from __future__ import annotations

from pathlib import Path

import attrs

from deploykit.settings.problems import too_small


@attrs.frozen(kw_only=True, slots=True)
class AuditSettings:
    """The audit log: who asked for what, and what was decided. Daemons that share it run as one user.

    Args:
        path: the file; `audit.log` in the state directory when it is not set.
        max_bytes: a file that would become longer is rotated.
        keep: how many older files are kept.
    """

    path: Path | None = None
    max_bytes: int = 16 << 20
    keep: int = 8

    def path_in(self, state: Path) -> Path:
        """Return the file, for a node with this state directory."""
        return self.path or state / "audit.log"

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well."""
        return tuple(too_small(self, {"max_bytes": 65536, "keep": 1}))
