"""The one line that a hook prints for the person who pushes."""

from __future__ import annotations

import os


def print_line(text: str) -> None:
    """Print one line to standard error, control characters made visible; a closed one is ignored."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)
    try:
        os.write(2, f"deploykit: {line}\n".encode("utf-8", "replace"))
    except OSError:
        return
