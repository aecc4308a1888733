"""Bodies of requests that change something: JSON into the classes of `actions.asked`, each field checked. Pure.

Rules:

* An unknown field, one that is missing, and one of another kind are each named. Up to ten are named at once.
* JSON is as strict as in messages: UTF-8, no key twice, no NaN, bounded in depth.
* Nothing is converted: `"1"` is a text, and never a number.
* What a text means is judged by the action, which names the field in the same way.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from typing import Final, Literal, TypeVar, get_args, get_origin

import attrs

from deploykit.errors import MessageError
from deploykit.web.api.problems import SHOWN, ParameterProblem, RequestRefused
from deploykit.wire.strictjson import parse

T = TypeVar("T")

#: Characters of one text (a signed statement in base64), items of one list, problems that one answer names.
MAX_FIELD: Final = 60_000
MAX_LIST: Final = 10_000
_MOST_PROBLEMS: Final = 10
#: Below this, and at 0x7F, are the control characters.
_FIRST_PRINTED: Final = " "
_DELETE: Final = "\x7f"


@attrs.frozen(kw_only=True, slots=True)
class BodyField:
    """A field of a body.

    Args:
        kind: its type, resolved.
        required: it must be given.
    """

    name: str
    kind: object
    required: bool


def body_fields(cls: type, without: frozenset[str] = frozenset()) -> tuple[BodyField, ...]:
    """Return the fields that a body of a class has.

    Args:
        cls: an attrs class.
        without: fields that the URL gives.
    """
    hints = typing.get_type_hints(cls)
    return tuple(
        BodyField(name=field.name, kind=hints[field.name], required=field.default is attrs.NOTHING)
        for field in attrs.fields(cls)
        if field.name not in without
    )


def decode_body(cls: type[T], body: bytes, fixed: Mapping[str, str] | None = None) -> T:
    """Return what a body asks for.

    Args:
        cls: an attrs class of texts, booleans, lists of texts, literals and such classes.
        body: JSON; no bytes at all count as an object without fields.
        fixed: fields that the URL gives; the body must not have them.

    Raises:
        RequestRefused: 400, it is no JSON; 422, a field is wrong: each is named.
    """
    value = decode_object(body)
    wrong: list[ParameterProblem] = []
    made = _object(cls, value, "", wrong, fixed or {})
    refuse(wrong)
    return typing.cast(T, made)


def decode_object(body: bytes) -> Mapping[str, object]:
    """Return the fields of a body.

    Raises:
        RequestRefused: it is no JSON, or no object.
    """
    if not body:
        return {}
    try:
        value = parse(body)
    except MessageError as error:
        raise RequestRefused(400, error.problem) from None
    if not isinstance(value, dict):
        raise RequestRefused(422, f"the body is {_words(value)}; expected an object")
    return value


def decode_one_of(classes: Mapping[str, type], body: bytes, fixed: Mapping[str, str]) -> object:
    """Return what a body asks for, whose field `kind` says which class it is of; the first one where it is absent.

    Raises:
        RequestRefused: as for `decode_body`.
    """
    value = dict(decode_object(body))
    kind = value.pop("kind", next(iter(classes)))
    wrong: list[ParameterProblem] = []
    if not isinstance(kind, str) or kind not in classes:
        refuse([ParameterProblem(parameter="kind", detail=f"expected {_one_of(tuple(classes))}")])
    made = _object(classes[str(kind)], value, "", wrong, fixed)
    refuse(wrong)
    return made


def refuse(wrong: list[ParameterProblem]) -> None:
    """Refuse a body of which something is wrong.

    Raises:
        RequestRefused: the text and `parameters` name each.
    """
    if wrong:
        named = wrong[:_MOST_PROBLEMS]
        text = "; ".join(f"{each.parameter!a}: {each.detail}" for each in named)
        raise RequestRefused(422, f"fields are wrong: {text}", parameters=tuple(named))


def _object(
    cls: type, value: Mapping[str, object], path: str, wrong: list[ParameterProblem], fixed: Mapping[str, str]
) -> object:
    """Return an object of a class, and add what is wrong with its fields; None where something is."""
    fields = {field.name: field for field in body_fields(cls, frozenset(fixed))}
    before = len(wrong)
    for name in value:
        if name not in fields:
            words = "given by the URL" if name in fixed else f"unknown; there are {', '.join(fields) or 'none'}"
            wrong.append(ParameterProblem(parameter=_shown(f"{path}{name}"), detail=words))
        if len(wrong) >= _MOST_PROBLEMS:
            return None
    given: dict[str, object] = dict(fixed)
    for name, field in fields.items():
        if name in value:
            given[name] = _value(field.kind, value[name], f"{path}{name}", wrong)
        elif field.required:
            wrong.append(ParameterProblem(parameter=f"{path}{name}", detail="needed"))
    return cls(**given) if len(wrong) == before else None


def _value(kind: object, value: object, path: str, wrong: list[ParameterProblem]) -> object:
    """Return a value of a type; None where something is wrong with it."""
    if isinstance(kind, type) and attrs.has(kind):
        if isinstance(value, dict):
            return _object(kind, value, f"{path}.", wrong, {})
        problem = f"expected an object, not {_words(value)}"
    elif get_origin(kind) is tuple:
        return _list(kind, value, path, wrong)
    else:
        problem = _plain_problem(kind, value)
    if problem:
        wrong.append(ParameterProblem(parameter=_shown(path), detail=problem))
        return None
    return value


def _list(kind: object, value: object, path: str, wrong: list[ParameterProblem]) -> object:
    if not isinstance(value, list) or len(value) > MAX_LIST:
        problem = f"at most {MAX_LIST} items" if isinstance(value, list) else f"expected a list, not {_words(value)}"
        wrong.append(ParameterProblem(parameter=_shown(path), detail=problem))
        return None
    item = get_args(kind)[0]
    made = []
    for at, each in enumerate(value):
        made.append(_value(item, each, f"{path}[{at}]", wrong))
        if len(wrong) >= _MOST_PROBLEMS:
            return None
    return tuple(made)


def _plain_problem(kind: object, value: object) -> str:
    """Return what is wrong with a text, a boolean or a literal; empty when all is well."""
    if kind is bool:
        return "" if isinstance(value, bool) else f"expected true or false, not {_words(value)}"
    if get_origin(kind) is Literal:
        return "" if value in get_args(kind) and isinstance(value, str) else f"expected {_one_of(get_args(kind))}"
    if kind is not str:
        raise TypeError(f"a body cannot have a field of type {kind!r}")
    if not isinstance(value, str):
        return f"expected a text, not {_words(value)}"
    if len(value) > MAX_FIELD:
        return f"at most {MAX_FIELD} characters"
    return "holds a control character" if any(_controls(value)) else ""


def _controls(text: str) -> Iterator[bool]:
    return (char < _FIRST_PRINTED or char == _DELETE for char in text)


def _one_of(choices: tuple[object, ...]) -> str:
    return f"one of {', '.join(map(str, choices))}"


def _shown(path: str) -> str:
    return path[: 2 * SHOWN]


def _words(value: object) -> str:
    """Return which kind of JSON value something is."""
    kinds: dict[type, str] = {bool: "a boolean", str: "a text", dict: "an object", list: "a list", type(None): "null"}
    return kinds.get(type(value), "a number")


__all__ = [
    "MAX_FIELD",
    "MAX_LIST",
    "BodyField",
    "body_fields",
    "decode_body",
    "decode_object",
    "decode_one_of",
    "refuse",
]
