"""JSON Schemas (2020-12) of answers, made from the types of views, as `encoding` writes them. Pure."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from deploykit.web.api.encoding import fields_of
from deploykit.web.projection.views import Paged
from deploykit.wire.schema import field_descriptions, first_line

#: A JSON Schema.
Schema = dict[str, Any]
_PLAIN: dict[object, Schema] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": ["number", "null"]},
    type(None): {"type": "null"},
    datetime: {"type": "string", "format": "date-time", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"},
    object: {},
}


class SchemaMaker:
    """Makes schemas of types. `components` has each class that they refer to, by name."""

    def __init__(self, prefix: str = "#/components/schemas/") -> None:
        self._prefix = prefix
        self.components: dict[str, Schema] = {}

    def of(self, kind: object) -> Schema:
        """Return the schema of a type: a view class, `Paged` of one, or what their fields have.

        Raises:
            TypeError: a type that is not written as JSON.
        """
        if isinstance(kind, typing.NewType):
            return self.of(kind.__supertype__)
        if kind in _PLAIN:
            return dict(_PLAIN[kind])
        return self._generic(kind) if get_origin(kind) is not None else self._class(kind)

    def _generic(self, kind: object) -> Schema:
        origin, args = get_origin(kind), get_args(kind)
        match origin:
            case _ if origin is Literal:
                return {"type": "string", "enum": list(args)}
            case _ if origin in (Union, types.UnionType):
                return _either([self.of(each) for each in args])
            case _ if origin in (tuple, list):
                return {"type": "array", "items": self.of(args[0])}
            case _ if origin is Paged:
                return self._page(args[0])
            case type() if issubclass(origin, Mapping):
                return {"type": "object", "additionalProperties": self.of(args[1])}
        raise TypeError(f"no schema for {kind!r}")

    def _class(self, cls: object) -> Schema:
        if not (isinstance(cls, type) and attrs.has(cls)):
            raise TypeError(f"no schema for {cls!r}")
        name = cls.__name__
        if name not in self.components:
            self.components[name] = {}
            hints, descriptions = typing.get_type_hints(cls), field_descriptions(cls)
            properties = {}
            for field in fields_of(cls):
                kind = hints.get(field)
                described = {"description": descriptions[field]} if field in descriptions else {}
                if kind is None:
                    getter = vars(cls)[field].fget
                    kind = typing.get_type_hints(getter)["return"]
                    described = {"description": (getter.__doc__ or "").partition("\n")[0]}
                properties[field] = {**self.of(kind), **described}
            self.components[name] = {
                "type": "object",
                "description": first_line(cls),
                "properties": properties,
                "required": list(properties),
            }
        return {"$ref": f"{self._prefix}{name}"}

    def _page(self, item: object) -> Schema:
        name = "TextPage" if item is str else f"{getattr(item, '__name__', '')}Page"
        if name not in self.components:
            self.components[name] = {
                "type": "object",
                "description": "One page of a list.",
                "properties": {
                    "items": {"type": "array", "items": self.of(item)},
                    "next": {
                        "type": ["string", "null"],
                        "format": "uri-reference",
                        "description": "Where the page after this one is; null where nothing follows.",
                    },
                    "total": {"type": ["integer", "null"], "description": "Items of all pages; null: not counted."},
                },
                "required": ["items", "next", "total"],
            }
        return {"$ref": f"{self._prefix}{name}"}


def _either(schemas: list[Schema]) -> Schema:
    """Return a schema that one of several fulfils, without `anyOf` where a list of types does."""
    if all(set(each) == {"type"} for each in schemas):
        return {"type": [each["type"] for each in schemas]}
    return {"anyOf": schemas}


__all__ = ["Schema", "SchemaMaker"]
