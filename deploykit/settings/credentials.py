"""Hide the credentials in addresses, for `repr`."""

from __future__ import annotations

import re


def hide_credentials(address: str) -> str:
    """Return the `repr` of an address, or of a list, without what stands before an `@`. It may be malformed."""
    first, *parts = address.split("://")
    if not parts:
        return repr(re.sub(r"^[^@]*:.*@", "***@", address))
    return repr("://".join([first, *(re.sub(r"^.*@", "***@", part, flags=re.DOTALL) for part in parts)]))
