"""The half of the API that does something: one request, its body, its answer.

Rules:

* What is wrong with a request is found before anything is done: viewer, URL, media type, body, Idempotency-Key.
* An action that was refused was not done; neither was one whose ledger did not answer.
* Views run in threads: they may ask nodes for seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from deploykit.errors import LedgerError, WebError
from deploykit.web.api.actionreads import actions_in
from deploykit.web.api.calls import api_call, problem_of
from deploykit.web.api.encoding import accepts, encode
from deploykit.web.api.problems import RequestRefused, problem_response
from deploykit.web.api.repeats import (
    HEADER,
    AnswerBook,
    AnswersInMemory,
    answer_again,
    given_key,
    key_digest,
    request_digest,
)
from deploykit.web.api.turns import ActionTurns
from deploykit.web.api.writeoperation import WriteCall, WriteOperation
from deploykit.web.requests import context_of

_log = logging.getLogger(__name__)
_JSON = "application/json"

#: A view as a route takes it.
Endpoint = Callable[[Request], Awaitable[Response]]


class WriteEndpoints:
    """Makes the views of one console. They share their places and what is remembered where there is no ledger."""

    def __init__(self) -> None:
        self._turns = ActionTurns()
        self._memory = AnswersInMemory()

    def of(self, operation: WriteOperation) -> Endpoint:
        """Return the view of an operation."""

        async def endpoint(request: Request) -> Response:
            try:
                body = await request.body()  # its length was capped before any view
                return await run_in_threadpool(self._answer, operation, request, body)
            except RequestRefused as refused:
                return problem_response(refused)
            except WebError as error:
                return problem_response(problem_of(error, operation.name))
            except Exception:  # noqa: BLE001 - a program gets a problem like any other; the log has what happened
                _log.exception("bug: %s failed", operation.name)
                return problem_response(RequestRefused(500, "the console failed; its log says why"))

        endpoint.__name__ = operation.name
        return endpoint

    def _answer(self, operation: WriteOperation, request: Request, body: bytes) -> Response:
        call = self._call(operation, request, body)
        key = given_key(request.headers.getlist(HEADER.lower()))
        with self._turns.turn(call.viewer.name):
            if not key or operation.repeatable:
                answer = operation.act(call)
                return _response(operation, _location(operation, request, call, answer), _body(answer))
            digest = request_digest(request.method, f"{request.url.path}?{request.url.query}", body)
            return self._once(operation, request, call, key_digest(call.viewer.name, key), digest)

    def _once(self, operation: WriteOperation, request: Request, call: WriteCall, key: str, digest: str) -> Response:
        """Return the answer to a request with a key: that of the first time, where there was one."""
        book: AnswerBook = context_of(request).answers or self._memory
        known = book.begin(key, digest)
        if known is not None:
            again = answer_again(known, digest)
            return _response(operation, again.location, again.body, repeated=True)
        try:
            answer = operation.act(call)
        except WebError:
            book.drop(key)  # nothing was done
            raise
        where = _location(operation, request, call, answer)
        try:
            book.finish(key, operation.status, location=where, body=_body(operation.kept(answer)))
        except LedgerError as error:  # it was done: whoever asked must learn so
            _log.warning("cannot keep the answer of %s for its %s: %s", operation.name, HEADER, error)
        return _response(operation, where, _body(answer))

    def _call(self, operation: WriteOperation, request: Request, body: bytes) -> WriteCall:
        """Return who asks for what.

        Raises:
            RequestRefused: something is wrong with the request.
        """
        call = api_call(request, operation.query)
        if not accepts(request.headers.get("accept", ""), _JSON):
            raise RequestRefused(406, f"there is {_JSON}")
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if body and media_type != _JSON:
            raise RequestRefused(415, f"send the body as {_JSON}")
        asked = operation.decode(body, call.path)
        return WriteCall(
            actions=actions_in(call.context), viewer=call.viewer, path=call.path, query=call.query, body=asked
        )


def _location(operation: WriteOperation, request: Request, call: WriteCall, answer: object) -> str:
    where = operation.location(call, answer) if operation.location is not None else ""
    return f"{request.scope.get('root_path', '')}{where}" if where else ""


def _body(answer: object) -> str:
    return encode(answer, str).decode()


def _response(operation: WriteOperation, location: str, body: str, *, repeated: bool = False) -> Response:
    more = {"location": location} if location else {}
    if repeated:
        more["idempotency-replayed"] = "true"
    headers = {"cache-control": "no-store", **more}
    return Response(body, status_code=operation.status, media_type=_JSON, headers=headers)


__all__ = ["Endpoint", "WriteEndpoints"]
