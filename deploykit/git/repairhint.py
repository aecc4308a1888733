"""What a reader of an error about a damaged repository can do about it."""

from __future__ import annotations

import shlex


def repair_hint(repository: str) -> str:
    """Return the command that clones a mirror anew, for its directory; an empty one is left for the reader to name."""
    return (
        f"`deploykit mirror check {shlex.quote(repository or 'MIRROR')} --repair URL` clones it anew; an agent does so"
    )
