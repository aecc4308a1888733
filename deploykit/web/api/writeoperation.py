"""One thing that the API does: method, path, body, and the class of its answer. Routes and OpenAPI use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeVar, cast

import attrs

from deploykit.web.actions.ports import ConsoleActions
from deploykit.web.actions.shown import ActionOutcome
from deploykit.web.api.bodies import decode_body, decode_one_of
from deploykit.web.api.parameters import GivenParameters, Parameter
from deploykit.web.api.posted import NothingAsked
from deploykit.web.viewer import Viewer

T = TypeVar("T")


@attrs.frozen(kw_only=True, slots=True)
class WriteCall:
    """Who asks for what.

    Args:
        path: the variable parts of the URL's path.
        query: the parameters in its query.
        body: what the body asks for.
    """

    actions: ConsoleActions
    viewer: Viewer
    path: dict[str, str]
    query: GivenParameters
    body: object = attrs.field(repr=False)

    def asked(self, cls: type[T]) -> T:
        """Return the body as what it was decoded into."""
        if not isinstance(self.body, cls):
            raise TypeError(f"the body is a {type(self.body).__name__}")
        return self.body


def _whole(answer: object) -> object:
    return answer


@attrs.frozen(kw_only=True, slots=True)
class WriteOperation:
    """A method on a path, and what it does.

    Args:
        name: `operationId`, unique.
        path: below `/api/v1`, variable parts in braces.
        act: does it; raises `ActionRefused` before anything is done.
        bodies: what the body is decoded into; of several, its field `kind` says which, and the first is the default.
        from_path: fields of the body that the path gives.
        answer: the type of what `act` returns.
        status: of the answer.
        location: returns the path of what was made, below `/api/v1`; None: there is none.
        kept: what of an answer an Idempotency-Key keeps: nothing that is secret.
        repeatable: it does nothing that lasts, so no Idempotency-Key is kept.
    """

    name: str
    method: Literal["POST", "PUT", "DELETE"]
    path: str
    summary: str
    act: Callable[[WriteCall], object]
    bodies: Mapping[str, type] = attrs.field(factory=lambda: {"": NothingAsked})
    from_path: frozenset[str] = frozenset()
    query: tuple[Parameter, ...] = ()
    answer: object = ActionOutcome
    status: int = 202
    location: Callable[[WriteCall, object], str] | None = None
    kept: Callable[[object], object] = _whole
    repeatable: bool = False

    @property
    def only_body(self) -> type:
        """The class of a body that can be of one class alone."""
        return next(iter(self.bodies.values()))

    def decode(self, body: bytes, path: Mapping[str, str]) -> object:
        """Return what a body asks for.

        Raises:
            RequestRefused: it is no JSON, or a field is wrong.
        """
        fixed = {name: path[name] for name in self.from_path}
        if len(self.bodies) > 1:
            return decode_one_of(self.bodies, body, fixed)
        return cast(object, decode_body(self.only_body, body, fixed))


__all__ = ["WriteCall", "WriteOperation"]
