"""The description of the API: OpenAPI 3.1, made from the table of operations and the classes of their answers. Pure."""

from __future__ import annotations

import functools
import json
from typing import Final

from deploykit.web.api.answerschema import Schema, SchemaMaker
from deploykit.web.api.openapiparts import path_names, path_parameter, query_parameter, write_operation
from deploykit.web.api.operation import ApiOperation, written_path
from deploykit.web.api.operations import OPERATIONS
from deploykit.web.api.parameters import EVENT_PARAMETERS
from deploykit.web.api.problems import PROBLEM_TYPE, ProblemDetails
from deploykit.web.api.writes import WRITES

_PROBLEMS: Final = {
    "400": "The body is not JSON.",
    "401": "Log in first.",
    "403": "The viewer may not; or the request did not come from a page of this console.",
    "404": "There is no such thing, or the viewer may not see it.",
    "406": "No representation that the request accepts.",
    "409": "Not now: the plan has changed, another rollout runs, the site is locked, the same key is at work.",
    "413": "The body is too large.",
    "415": "The body is not `application/json`.",
    "422": "A part of the URL or a field is wrong; `errors` names each.",
    "429": "Too many requests of this viewer are at work; `Retry-After` says when.",
    "503": "Not now; `Retry-After` says when.",
}
#: Of requests that only read.
_READING: Final = ("401", "403", "404", "406", "422", "503")
_ABOUT: Final = (
    "What the fleet holds, and what can be done with it. Lists come in pages: follow `next`. What is read has an "
    "`ETag`, and `X-Last-Event-ID`: follow `/events` from there and nothing is missed. What changes something answers "
    "202 with `Location`, takes an `Idempotency-Key`, and refuses unknown fields. Fields may be added to answers; "
    "ignore unknown ones."
)


def document() -> Schema:
    """Return the description of the whole API."""
    maker = SchemaMaker()
    maker.of(ProblemDetails)
    paths: Schema = {written_path(operation.path): {"get": _operation(operation, maker)} for operation in OPERATIONS}
    for write in WRITES:
        paths.setdefault(written_path(write.path), {})[write.method.lower()] = write_operation(write, maker)
    paths["/events"] = {"get": _events()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "deploykit", "version": "1", "description": _ABOUT},
        "servers": [{"url": "/api/v1"}],
        "security": [{}, {"token": []}, {"password": []}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(maker.components.items())),
            "responses": {f"Problem{status}": _problem(text) for status, text in _PROBLEMS.items()},
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API token, made on the account page; its role and sites cap those of its owner.",
                },
                "password": {
                    "type": "http",
                    "scheme": "basic",
                    "description": 'With `login = "password"`. With a proxy, as the proxy wants it.',
                },
            },
        },
    }


@functools.cache
def openapi_text() -> str:
    """Return the description as JSON text, as the committed file holds it."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def _operation(operation: ApiOperation, maker: SchemaMaker) -> Schema:
    content: Schema = {"application/json": {"schema": maker.of(operation.answer)}}
    if operation.plain_text is not None:
        content["text/plain"] = {"schema": {"type": "string"}}
    headers = {
        "ETag": {"description": "Send it as `If-None-Match` the next time.", "schema": {"type": "string"}},
        "X-Last-Event-ID": {
            "description": "The newest event when the answer was made: `after` of `/events`.",
            "schema": {"type": "string"},
        },
    }
    names = path_names(operation.path)
    return {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [*(path_parameter(name) for name in names), *map(query_parameter, operation.query)],
        "responses": {
            "200": {"description": operation.summary, "headers": headers, "content": content},
            "304": {"description": "Not changed since the answer with this `ETag`."},
            **_problem_responses(without=() if names else ("404",)),
        },
    }


def _events() -> Schema:
    return {
        "operationId": "events",
        "summary": "What changes, as it happens: server-sent events",
        "description": "The `event` of each is its topic, its `data` a JSON object with `time`, `site` and "
        "`correlation`. `reset`: events were missed; load what is shown again. A stream ends after some minutes: "
        "come back with `Last-Event-ID`.",
        "parameters": [
            {
                "name": "Last-Event-ID",
                "in": "header",
                "description": "Number of the last event that the reader has; browsers send it themselves.",
                "schema": {"type": "string"},
            },
            *map(query_parameter, EVENT_PARAMETERS),
        ],
        "responses": {
            "200": {"description": "A stream.", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
            **_problem_responses(without=("404",)),
        },
    }


def _problem(text: str) -> Schema:
    return {
        "description": text,
        "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
    }


def _problem_responses(*, without: tuple[str, ...]) -> Schema:
    return {status: {"$ref": f"#/components/responses/Problem{status}"} for status in _READING if status not in without}


__all__ = ["document", "openapi_text"]
