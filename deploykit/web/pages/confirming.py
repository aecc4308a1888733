"""The page between a button and what it does, where that cannot be taken back: it says what would happen."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from starlette.requests import Request
from starlette.responses import Response

from deploykit.web.pages.render import render


@attrs.frozen(kw_only=True, slots=True)
class ConfirmPage:
    """What is asked once more.

    Args:
        title: what would be done.
        facts: what that means, a sentence each.
        button: what the button says that does it.
        fields: of the form, hidden.
        reason: there is a field for a reason.
        to: path to which the form goes. back: path of the page for who thinks better of it.
        site: whose live events change the page; empty for none.
    """

    title: str
    facts: tuple[str, ...]
    button: str
    fields: Mapping[str, str] = attrs.field(factory=dict, eq=dict, hash=False)
    reason: bool = False
    to: tuple[str, ...]
    back: tuple[str, ...]
    site: str = ""


def confirm(request: Request, page: ConfirmPage) -> Response:
    """Return the page."""
    return render(request, "confirm.html", page=page)


__all__ = ["ConfirmPage", "confirm"]
