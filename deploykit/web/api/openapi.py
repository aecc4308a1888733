"""The description of the API: OpenAPI 3.1, made from the table of operations and the classes of their answers. Pure."""

from __future__ import annotations

import functools
import json
import re
from typing import Final

from deploykit.web.api.answerschema import Schema, SchemaMaker
from deploykit.web.api.operation import ApiOperation, written_path
from deploykit.web.api.operations import OPERATIONS
from deploykit.web.api.parameters import EVENT_PARAMETERS, MAX_TEXT, Parameter
from deploykit.web.api.problems import PROBLEM_TYPE, ProblemDetails

_PATH_PARTS: Final = {
    "site": "A site.",
    "node": "A node.",
    "deploy": "The id of a rollout, or of a single command.",
    "operation": "An operation of a site on a node: NODE:NUMBER.",
    "repo": "A repository; its name may have slashes.",
}
_PROBLEMS: Final = {
    "401": "Log in first.",
    "403": "The viewer may not look.",
    "404": "There is no such thing, or the viewer may not see it.",
    "406": "No representation that the request accepts.",
    "422": "A part of the URL is wrong; `errors` names each.",
    "503": "Not now; `Retry-After` says when.",
}
_ABOUT: Final = (
    "What the fleet holds, for reading. Lists come in pages: follow `next`. Every answer has an `ETag`, and "
    "`X-Last-Event-ID`: follow `/events` from there and nothing is missed. Fields may be added; ignore unknown ones."
)


def document() -> Schema:
    """Return the description of the whole API."""
    maker = SchemaMaker()
    maker.of(ProblemDetails)
    paths: Schema = {written_path(operation.path): {"get": _operation(operation, maker)} for operation in OPERATIONS}
    paths["/events"] = {"get": _events()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "deploykit", "version": "1", "description": _ABOUT},
        "servers": [{"url": "/api/v1"}],
        "security": [{}, {"password": []}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(maker.components.items())),
            "responses": {f"Problem{status}": _problem(text) for status, text in _PROBLEMS.items()},
            "securitySchemes": {
                "password": {
                    "type": "http",
                    "scheme": "basic",
                    "description": 'With `login = "password"`. With a proxy, as the proxy wants it.',
                }
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
    names = re.findall(r"\{(\w+)", operation.path)
    return {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [*(_path_parameter(name) for name in names), *map(_query_parameter, operation.query)],
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
            *map(_query_parameter, EVENT_PARAMETERS),
        ],
        "responses": {
            "200": {"description": "A stream.", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
            **_problem_responses(without=("404",)),
        },
    }


def _path_parameter(name: str) -> Schema:
    schema = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT}
    return {"name": name, "in": "path", "required": True, "description": _PATH_PARTS[name], "schema": schema}


def _query_parameter(parameter: Parameter) -> Schema:
    made: Schema = {"name": parameter.name, "in": "query", "description": parameter.description}
    if parameter.required:
        made["required"] = True
    if parameter.choices:
        item = {"type": "string", "enum": list(parameter.choices)}
        return {**made, "style": "form", "explode": False, "schema": {"type": "array", "items": item}}
    if parameter.least is None:
        schema: Schema = {"type": "string", "maxLength": MAX_TEXT}
    else:
        schema = {"type": "integer", "minimum": parameter.least, "maximum": parameter.most}
        if parameter.default is not None:
            schema["default"] = parameter.default
    more = {"example": parameter.example} if parameter.example else {}
    return {**made, **more, "schema": schema}


def _problem(text: str) -> Schema:
    return {
        "description": text,
        "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
    }


def _problem_responses(*, without: tuple[str, ...]) -> Schema:
    return {
        status: {"$ref": f"#/components/responses/Problem{status}"} for status in _PROBLEMS if status not in without
    }


__all__ = ["document", "openapi_text"]
