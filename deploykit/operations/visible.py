"""Text from elsewhere for people: control characters are shown, never sent."""

from __future__ import annotations


def visible(text: object, *, tabs: bool = False) -> str:
    r"""Return the text with what is not printable escaped, but for tabs where they are wanted.

    >>> visible("red \x1b[31m")
    'red \\x1b[31m'
    """
    return "".join(c if c.isprintable() or (tabs and c == "\t") else f"\\x{ord(c):02x}" for c in str(text))
