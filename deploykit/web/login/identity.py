"""Who sends a request."""

from __future__ import annotations

from typing import Final

import attrs

from deploykit.web.ledger.tokens import KeptToken
from deploykit.web.login.sessions import BrowserSession
from deploykit.web.viewer import Viewer


@attrs.frozen(kw_only=True, slots=True)
class RequestIdentity:
    """Who sends a request.

    Args:
        viewer: without grants where nobody is logged in.
        token: what forms carry; empty where they need none.
        older_token: of a page that was shown before the browser had a cookie; empty for none.
        set_cookie: a header `Set-Cookie` that the answer must have; empty for none.
        session: of a browser; None for others.
        api: the API token that was shown; None for none.
        ambient: a browser adds what shows who it is by itself, so another page could make it send something.
    """

    viewer: Viewer
    token: str = attrs.field(default="", repr=False)
    older_token: str = attrs.field(default="", repr=False)
    set_cookie: str = attrs.field(default="", repr=False)
    session: BrowserSession | None = None
    api: KeptToken | None = None
    ambient: bool = True

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that the provider named at the login."""
        return self.session.groups if self.session is not None else ()

    @property
    def stream_key(self) -> str:
        """What event streams are counted by."""
        if self.session is not None:
            return self.session.key
        return self.api.key if self.api is not None else self.viewer.name


NOBODY: Final = RequestIdentity(viewer=Viewer())

__all__ = ["NOBODY", "RequestIdentity"]
