"""A text of any origin, made safe to show. Pure."""

from __future__ import annotations


def one_line(text: str, limit: int = 300) -> str:
    """Return a text made safe for a log, a terminal or a chat: one line, no control characters, bounded."""
    shown = text[: 4 * limit]
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else " " for c in shown)
    if "  " in shown or shown[:1] == " " or shown[-1:] == " ":  # of all blanks only this one is printable
        shown = " ".join(shown.split())
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
