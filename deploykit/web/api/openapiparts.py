"""Parts of the OpenAPI document: parameters, and the operations that do something. Pure."""

from __future__ import annotations

import re
from typing import Final

from deploykit.web.api.answerschema import Schema, SchemaMaker
from deploykit.web.api.bodyschema import body_schema, choice_schema
from deploykit.web.api.parameters import MAX_TEXT, Parameter
from deploykit.web.api.posted import NothingAsked
from deploykit.web.api.repeats import HEADER
from deploykit.web.api.writeoperation import WriteOperation

_PATH_PARTS: Final = {
    "site": "A site.",
    "node": "A node.",
    "deploy": "The id of a rollout, or of a single command.",
    "operation": "An operation of a site on a node: NODE:NUMBER.",
    "repo": "A repository; its name may have slashes.",
}
_REFUSED: Final = ("400", "401", "403", "404", "406", "409", "413", "415", "422", "429", "503")
_KEY: Final[Schema] = {
    "name": HEADER,
    "in": "header",
    "description": "The caller's, for one request: sent again, it gets the first answer, and nothing is done twice.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200},
}


def path_names(path: str) -> list[str]:
    """Return the variable parts of a path."""
    return re.findall(r"\{(\w+)", path)


def write_operation(operation: WriteOperation, maker: SchemaMaker) -> Schema:
    """Return the description of a method that does something."""
    answer: Schema = {
        "description": operation.summary,
        "content": {"application/json": {"schema": maker.of(operation.answer)}},
    }
    if operation.location is not None:
        where: Schema = {"type": "string", "format": "uri-reference"}
        answer["headers"] = {"Location": {"description": "Where to look for what comes of it.", "schema": where}}
    body = _body(operation, maker)
    return {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [
            *map(path_parameter, path_names(operation.path)),
            *map(query_parameter, operation.query),
            *([] if operation.repeatable else [_KEY]),
        ],
        **({"requestBody": body} if body else {}),
        "responses": {
            str(operation.status): answer,
            **{status: {"$ref": f"#/components/responses/Problem{status}"} for status in _REFUSED},
        },
    }


def _body(operation: WriteOperation, maker: SchemaMaker) -> Schema:
    if operation.only_body is NothingAsked:
        return {}
    if len(operation.bodies) > 1:
        schema = choice_schema(operation.bodies, maker.components, operation.from_path)
    else:
        schema = body_schema(operation.only_body, maker.components, operation.from_path)
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def path_parameter(name: str) -> Schema:
    """Return the description of a variable part of a path."""
    schema = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT}
    return {"name": name, "in": "path", "required": True, "description": _PATH_PARTS[name], "schema": schema}


def query_parameter(parameter: Parameter) -> Schema:
    """Return the description of a parameter of the query."""
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


__all__ = ["path_names", "path_parameter", "query_parameter", "write_operation"]
