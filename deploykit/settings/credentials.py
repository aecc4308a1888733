"""Addresses without the credentials in them: what a repr may show."""

from __future__ import annotations

import re


def hide_credentials(address: str) -> str:
    """Show an address, or a list of them, without what stands before an `@`, however broken it is."""
    first, *parts = address.split("://")
    if not parts:
        return repr(re.sub(r"^[^@]*:.*@", "***@", address))
    return repr("://".join([first, *(re.sub(r"^.*@", "***@", part, flags=re.DOTALL) for part in parts)]))
