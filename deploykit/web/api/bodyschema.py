"""JSON Schemas (2020-12) of bodies, made from the classes that `bodies` decodes them into. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args, get_origin

import attrs

from deploykit.web.api.answerschema import Schema
from deploykit.web.api.bodies import MAX_FIELD, MAX_LIST, body_fields
from deploykit.wire.schema import field_descriptions, first_line

_TEXT: Final[Schema] = {"type": "string", "maxLength": MAX_FIELD, "pattern": r"^[^\u0000-\u001f\u007f]*$"}
_PREFIX: Final = "#/components/schemas/"


def body_schema(cls: type, components: dict[str, Schema], without: frozenset[str] = frozenset()) -> Schema:
    """Return a reference to the schema of a class, which is added to `components`.

    Args:
        cls: the class.
        components: schemas by name.
        without: fields that the URL gives.
    """
    if cls.__name__ not in components:
        components[cls.__name__] = {}
        descriptions, fields = field_descriptions(cls), body_fields(cls, without)
        properties = {
            field.name: {
                **_of(field.kind, components),
                **({"description": descriptions[field.name]} if field.name in descriptions else {}),
            }
            for field in fields
        }
        required = [field.name for field in fields if field.required]
        components[cls.__name__] = {
            "type": "object",
            "description": first_line(cls),
            "properties": properties,
            **({"required": required} if required else {}),
            "additionalProperties": False,
        }
    return {"$ref": f"{_PREFIX}{cls.__name__}"}


def choice_schema(classes: Mapping[str, type], components: dict[str, Schema], without: frozenset[str]) -> Schema:
    """Return the schema of a body whose field `kind` says which class it is of; the first where it is absent."""
    made: list[Schema] = []
    for at, (kind, cls) in enumerate(classes.items()):
        body_schema(cls, components, without)
        plain = components[cls.__name__]
        named = {"kind": {"const": kind}, **plain["properties"]}
        required = [*([] if not at else ["kind"]), *plain.get("required", ())]
        made.append({**plain, "properties": named, **({"required": required} if required else {})})
    return {"oneOf": made}


def _of(kind: object, components: dict[str, Schema]) -> Schema:
    if kind is str:
        return dict(_TEXT)
    if kind is bool:
        return {"type": "boolean"}
    if get_origin(kind) is Literal:
        return {"type": "string", "enum": list(get_args(kind))}
    if get_origin(kind) is tuple:
        return {"type": "array", "items": _of(get_args(kind)[0], components), "maxItems": MAX_LIST}
    if isinstance(kind, type) and attrs.has(kind):
        return body_schema(kind, components)
    raise TypeError(f"no schema for {kind!r}")


__all__ = ["body_schema", "choice_schema"]
