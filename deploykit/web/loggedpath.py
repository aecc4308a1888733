"""A request's path, as logs and the audit may have it."""

from __future__ import annotations

from typing import Final

#: Before the code of an invitation, which is good for a day: whoever reads it makes a passkey in another's name.
_INVITE: Final = "/invite/"


def logged_path(path: str) -> str:
    """Return a path without the secret in it.

    >>> logged_path("/sites/shop")
    '/sites/shop'
    >>> logged_path("/invite/abc")
    '/invite/...'
    """
    head, found, _ = path.partition(_INVITE)
    return f"{head}{found}..." if found else path


__all__ = ["logged_path"]
