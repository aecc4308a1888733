"""What every view of the API takes from a request, checked; and which problem an error of ours is."""

from __future__ import annotations

import logging

from starlette.requests import Request

from deploykit.errors import ActionRefused, LedgerError, WebError
from deploykit.web.api.operation import ApiCall
from deploykit.web.api.parameters import Parameter, check_parameters, value_is_text
from deploykit.web.api.problems import SHOWN, ParameterProblem, RequestRefused
from deploykit.web.requests import context_of, viewer_of

_log = logging.getLogger(__name__)


def api_call(request: Request, query: tuple[Parameter, ...]) -> ApiCall:
    """Return who asks for what.

    Raises:
        RequestRefused: they may look at nothing, or a part of the URL is wrong.
    """
    viewer = viewer_of(request)
    if not viewer.name:
        raise RequestRefused(401, "log in first")
    if not viewer.grants:
        raise RequestRefused(403, f"{viewer.name[:SHOWN]!a} may look at nothing here")
    path = {name: str(value) for name, value in request.path_params.items() if name != "path"}
    for name, text in path.items():
        if not value_is_text(text):
            wrong = ParameterProblem(parameter=name, detail="too long, or holds a control character")
            raise RequestRefused(422, f"{name}: {wrong.detail}", parameters=(wrong,))
    given = check_parameters(request.query_params.multi_items(), query)
    return ApiCall(context=context_of(request), viewer=viewer, path=path, query=given)


def problem_of(error: WebError, what: str) -> RequestRefused:
    """Return the problem that an error of ours is.

    Args:
        error: as a view raised it.
        what: the operation, for the log.
    """
    match error:
        case RequestRefused():
            return error
        case ActionRefused():
            wrong = tuple(ParameterProblem(parameter=name, detail=detail) for name, detail in error.problems.items())
            return RequestRefused(error.status, str(error), parameters=wrong)
        case LedgerError():
            _log.warning("cannot do %s: %s", what, error)
            return RequestRefused(503, "the console's ledger does not answer; nothing was done", retry_after=5)
    _log.warning("cannot answer %s: %s", what, error)
    return RequestRefused(503, "the console's database does not answer", retry_after=5)


__all__ = ["api_call", "problem_of"]
