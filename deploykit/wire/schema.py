"""JSON Schemas of the native wire, made from the message classes; and whether a change keeps old readers.

Rule: within `…v1` a schema only ever gains optional fields. Any other change makes frames that some reader in a mixed
fleet refuses, and needs a new type (`…v2`) beside the old one. One exception: a new field may stand in place of
required ones, as `parts` does for `ref` and `commit`. Old readers refuse such a message whole, which is what it is
for: a command that a node does not understand must not be half obeyed.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from deploykit.errors import UsageError
from deploykit.messages import BY_TYPE, Message
from deploykit.wire import field_types
from deploykit.wire.field_types import FieldType, Leaf, ListOf, Maybe, RecordType
from deploykit.wire.forms import forms
from deploykit.wire.strictjson import MAX_ITEMS

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def wire_class(name: str) -> type[Message]:
    """Return a message class by its wire type, a shorter form of it, or its Python name.

    >>> wire_class("notice") is wire_class("deploykit.notice.v1") is wire_class("Notice")
    True

    Raises:
        UsageError: there is no such class; the text names all.
    """
    for wire_type, cls in BY_TYPE.items():
        if name in (wire_type, wire_type.removeprefix("deploykit.").rpartition(".v")[0], cls.__name__):
            return cls
    raise UsageError(f"no message type {ascii(name)[:80]}", f"one of {', '.join(c.__name__ for c in BY_TYPE.values())}")


def schema(cls: type[Message]) -> dict[str, Any]:
    """Return the JSON Schema of a message's whole body: the CloudEvent with its `data`."""
    nested: dict[str, Any] = {}
    data = _record(cls, nested)
    made = {
        "$schema": DIALECT,
        "$id": f"urn:deploykit:schema:{cls.TYPE}",
        "title": cls.__name__,
        "description": first_line(cls),
        "type": "object",
        "properties": {
            "specversion": {"const": "1.0"},
            "type": {"const": cls.TYPE},
            "id": _attribute("id", "Unique per message of a source; a redelivery keeps it."),
            "source": _attribute("source", "Who says it: a node name or a hook, e.g. git/host."),
            "time": _attribute("time", "When, RFC 3339; written in UTC."),
            "datacontenttype": {"type": "string", "pattern": r"^[A-Za-z]+/(?:json|[A-Za-z0-9.-]+\+json)\s*(?:;|$)"},
            "correlationid": {
                "type": "string",
                "minLength": 1,
                "maxLength": 255,
                "description": "The same from a push to its builds and deploys.",
            },
            "data_base64": False,
            "data": data,
        },
        "required": ["specversion", "type", "id", "source", "time", "data"],
    }
    return made | ({"$defs": nested} if nested else {})


def _attribute(name: str, description: str) -> dict[str, Any]:
    """Return the schema of an attribute of the envelope, with its description."""
    return {**_type_schema(field_types.envelope_type(name), {}), "description": description}


def _record(cls: type, nested: dict[str, Any]) -> dict[str, Any]:
    descriptions = field_descriptions(cls)
    properties: dict[str, Any] = {}
    for field in field_types.fields(cls):
        properties[field.name] = _type_schema(field.type, nested)
        if field.name in descriptions:
            properties[field.name] = {**properties[field.name], "description": descriptions[field.name]}
    properties |= dict.fromkeys(sorted(field_types.never_written(cls)), False)
    made: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "required": [f.name for f in field_types.fields(cls) if f.required],
        "maxProperties": MAX_ITEMS,
    }
    for instead, others in forms(cls).items():  # one at most
        made["oneOf"] = [_form(others, [instead]), _form([instead], others)]
    return made


def _form(required: Sequence[str], absent: Sequence[str]) -> dict[str, Any]:
    return {"required": list(required), "properties": dict.fromkeys(absent, False)}


def _type_schema(kind: FieldType, nested: dict[str, Any]) -> dict[str, Any]:
    match kind:
        case Leaf(schema=leaf):
            return dict(leaf)
        case ListOf(item=item, most=most):
            return {"type": "array", "items": _type_schema(item, nested), "maxItems": most or MAX_ITEMS}
        case Maybe(item=item):
            return {"anyOf": [_type_schema(item, nested), {"type": "null"}]}
        case RecordType(cls=cls):
            if cls.__name__ not in nested:
                nested[cls.__name__] = {"description": first_line(cls), **_record(cls, nested)}
            return {"$ref": f"#/$defs/{cls.__name__}"}


def first_line(cls: type) -> str:
    """Return the first line of a class's docstring."""
    return (inspect.getdoc(cls) or "").partition("\n")[0]


_ARGUMENT = re.compile(r"^    ([a-z_, ]+): (.*(?:\n        .*)*)", re.MULTILINE)


def field_descriptions(cls: type) -> dict[str, str]:
    """Return the description of each field in the class's docstring."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        for hit in _ARGUMENT.finditer((inspect.getdoc(base) or "").partition("Args:\n")[2]):
            found |= dict.fromkeys((name.strip() for name in hit[1].split(",")), " ".join(hit[2].split()))
    return found


# -- files -------------------------------------------------------------------------------------------------------------


def schema_text(cls: type[Message]) -> str:
    """Return a schema as the committed files hold it."""
    return json.dumps(schema(cls), indent=2, ensure_ascii=False) + "\n"


def file_name(cls: type[Message]) -> str:
    """Return the name of the file that holds a schema."""
    return f"{cls.TYPE}.json"


def updates(committed: Mapping[str, str]) -> dict[str, str]:
    """Return the schema files to write, by name, in a directory that holds the `committed` ones.

    Raises:
        UsageError: readers of a committed schema could not read the new messages, or it is not JSON: write none.
    """
    found = [
        f"{cls.TYPE}: {problem}"
        for cls in BY_TYPE.values()
        if file_name(cls) in committed
        for problem in incompatibilities(_committed(file_name(cls), committed), schema(cls))
    ]
    if found:
        raise UsageError(
            f"older readers could not read this: {'; '.join(found[:5])}", "make a new type (v2) beside the old one"
        )
    texts = {file_name(cls): schema_text(cls) for cls in BY_TYPE.values()}
    return {name: text for name, text in texts.items() if committed.get(name) != text}


def _committed(name: str, texts: Mapping[str, str]) -> object:
    try:
        found: object = json.loads(texts[name])
    except (ValueError, RecursionError):
        raise UsageError(f"{name} is not JSON, so it cannot be compared", "restore it") from None
    return found


# -- compatibility -----------------------------------------------------------------------------------------------------

_ONLY_FOR_PEOPLE: Final = frozenset({"$schema", "$id", "title", "description"})


def incompatibilities(old: object, new: object, path: str = "") -> list[str]:
    """Return the changes from `old` to `new` that a mixed fleet could not handle, each with its path.

    Old and new readers must accept what old and new writers write. So a new schema may have new optional properties,
    and new `$defs` for them, and a new form in place of required ones; nothing else may change but texts for people.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return list(_differences(old, new, path))
    return [] if old == new else [f"{path or '/'}: was {_short(old)}, is {_short(new)}"]


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[str]:
    replaced = _replaced(old, new)
    for key in sorted(old.keys() | new.keys()):
        here = f"{path}/{key}"
        if key in _ONLY_FOR_PEOPLE and not path.endswith("/properties"):
            continue
        if key == "required" and not path.endswith("/properties"):
            gone, come = (
                set(old.get(key, ())) - set(new.get(key, ())) - replaced,
                set(new.get(key, ())) - set(old.get(key, ())),
            )
            yield from (f"{path}: {name} was required, newer writers may leave it out" for name in sorted(gone))
            yield from (f"{path}: {name} is required now, older writers leave it out" for name in sorted(come))
        elif key not in new:
            yield f"{here}: is gone"
        elif key not in old:
            if key == "oneOf" and replaced:
                continue
            if path.rpartition("/")[2] not in ("properties", "$defs") and key != "$defs":
                yield f"{here}: is new"
        else:
            yield from incompatibilities(old[key], new[key], here)


def _replaced(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    """Return the fields, required before, in whose place a new one may stand: what old writers write is still read."""
    match new.get("oneOf"):
        case [{"required": [*kept]}, {"required": [instead]}] if (
            "oneOf" not in old
            and instead not in old.get("properties", {})
            and set(kept) <= set(old.get("required", ()))
        ):
            return set(kept)
    return set()


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else text[:57] + "..."
