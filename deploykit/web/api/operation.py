"""One thing that the API answers: its path, parameters, view and the class of its answer. Routes and OpenAPI use it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import attrs

from deploykit.web.api.parameters import GivenParameters, Parameter
from deploykit.web.context import ConsoleContext
from deploykit.web.projection.views import MAX_LIMIT, PageRequested
from deploykit.web.viewer import Viewer

AFTER: Final = Parameter(name="after", description="Continue here: taken from `next` of the page before.")
LIMIT: Final = Parameter(name="limit", description="Most items of a page.", least=1, most=MAX_LIMIT, default=100)
SEARCH: Final = Parameter(name="q", description="Only items with this text in a name, whatever the case.")
#: Parameters of every list that comes in pages.
PAGE: Final = (AFTER, LIMIT, SEARCH)


@attrs.frozen(kw_only=True, slots=True)
class ApiCall:
    """What a view gets: who asks for what.

    Args:
        path: the variable parts of the URL's path.
        query: the parameters in its query.
    """

    context: ConsoleContext
    viewer: Viewer
    path: dict[str, str]
    query: GivenParameters

    @property
    def page(self) -> PageRequested:
        """The part of a list that is wanted."""
        return PageRequested(
            after=self.query.text("after"), limit=self.query.number("limit", 100), search=self.query.text("q")[:100]
        )


@attrs.frozen(kw_only=True, slots=True)
class ApiOperation:
    """A path of the API and what is behind it.

    Args:
        name: `operationId`, unique.
        path: below `/api/v1`, variable parts in braces.
        answer: the type of what `view` returns: a view class, `Paged[...]` of one.
        view: returns the answer; None where there is no such thing, or the viewer may not see it.
        plain_text: makes `text/plain` of an answer, for those who ask for it; None: only JSON.
    """

    name: str
    path: str
    summary: str
    answer: object
    view: Callable[[ApiCall], object]
    query: tuple[Parameter, ...] = ()
    plain_text: Callable[[object], str] | None = None


def written_path(path: str) -> str:
    """Return a route's path as OpenAPI writes it.

    >>> written_path("/refs/{repo:path}")
    '/refs/{repo}'
    """
    return re.sub(r":\w+\}", "}", path)


__all__ = ["AFTER", "LIMIT", "PAGE", "SEARCH", "ApiCall", "ApiOperation", "written_path"]
