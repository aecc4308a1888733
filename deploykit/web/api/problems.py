"""What the API answers when it cannot give what was asked: RFC 9457, `application/problem+json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import attrs
from starlette.responses import Response

from deploykit.errors import WebError

PROBLEM_TYPE: Final = "application/problem+json"
#: Most of a text from a request that an answer repeats.
SHOWN: Final = 80
#: Titles whose words differ between versions of Python.
_TITLES: Final = {422: "Unprocessable Content"}


@attrs.frozen(kw_only=True, slots=True)
class ParameterProblem:
    """What is wrong with one parameter."""

    parameter: str
    detail: str


@attrs.frozen(kw_only=True, slots=True)
class ProblemDetails:
    """Why a request got no answer: RFC 9457.

    Args:
        type: always `about:blank`: the status says which kind it is.
        title: the status in words.
        detail: what is wrong with this request, for people.
        errors: what is wrong with each parameter; empty where it is none of them.
    """

    title: str
    status: int
    detail: str
    type: str = "about:blank"
    errors: tuple[ParameterProblem, ...] = ()


class RequestRefused(WebError):
    """A request of the API cannot be answered. The answer is a problem with `status`; correct the request.

    Args:
        status: HTTP status code of the answer.
        parameters: what is wrong with which parameter.
    """

    def __init__(
        self, status: int, problem: str, *, parameters: tuple[ParameterProblem, ...] = (), retry_after: int = 0
    ) -> None:
        super().__init__(problem)
        self.status = status
        self.parameters = parameters
        self.retry_after = retry_after


def problem_response(refused: RequestRefused, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer."""
    details = ProblemDetails(
        title=_TITLES.get(refused.status) or HTTPStatus(refused.status).phrase,
        status=refused.status,
        detail=refused.problem,
        errors=refused.parameters,
    )
    body = json.dumps(attrs.asdict(details))
    more = {"retry-after": str(refused.retry_after)} if refused.retry_after else {}
    return Response(
        body,
        status_code=refused.status,
        media_type=PROBLEM_TYPE,
        headers={"cache-control": "no-store", **more, **(headers or {})},
    )


__all__ = ["PROBLEM_TYPE", "SHOWN", "ParameterProblem", "ProblemDetails", "RequestRefused", "problem_response"]
