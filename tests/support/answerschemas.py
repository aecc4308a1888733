"""What an answer of the API must fulfil: the schema that OpenAPI has of it, and nothing beside it."""

from __future__ import annotations

import functools
from typing import Any

from jsonschema import Draft202012Validator

from deploykit.web.api.openapi import document


def strict(schema: Any) -> Any:
    """The schema, but nothing may be in an answer that it does not have."""
    if isinstance(schema, dict):
        made = {key: strict(value) for key, value in schema.items()}
        return made | ({"additionalProperties": False} if "required" in made and "properties" in made else {})
    return [strict(each) for each in schema] if isinstance(schema, list) else schema


@functools.cache
def strict_document() -> Any:
    """The whole description, strict."""
    return strict(document())


@functools.cache
def validator(name: str) -> Draft202012Validator:
    """What the answer of an operation must fulfil, as OpenAPI describes it."""
    made = strict_document()
    operation = next(each for path in made["paths"].values() for each in path.values() if each["operationId"] == name)
    status = next(status for status in operation["responses"] if status.startswith("2"))
    found = operation["responses"][status]["content"]["application/json"]["schema"]
    return Draft202012Validator(
        {**found, "components": made["components"]}, format_checker=Draft202012Validator.FORMAT_CHECKER
    )


@functools.cache
def problem_validator() -> Draft202012Validator:
    """What every problem must fulfil."""
    components = strict_document()["components"]
    return Draft202012Validator({"$ref": "#/components/schemas/ProblemDetails", "components": components})
