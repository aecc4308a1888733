"""Passwords that were just made, until their page has shown them: in memory, for a minute, each for one login.

The form answers 303 to that page: whoever loads it again makes no new password.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import Request

from deploykit.web.actions.shown import AccessGranted
from deploykit.web.pages.keptbriefly import BriefStore
from deploykit.web.requests import viewer_of

#: Of this process, by login.
SHOWN_ONCE: Final = BriefStore[AccessGranted](60.0)


def login_of(request: Request) -> str:
    """Return what tells the login of a request from others of the same viewer, as far as there are several."""
    identity = getattr(request.state, "identity", None)
    session = identity.session.key if identity is not None and identity.session is not None else ""
    return f"{viewer_of(request).name}\0{session}"


__all__ = ["SHOWN_ONCE", "login_of"]
