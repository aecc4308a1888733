"""Why a CloudEvent holds no message of its type: every problem, with its path. Loaded for the first that does not.

A cattrs converter with the checks of `quickreader`, which collects what it finds. Values from outside never stand in
its texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Final, TypeVar, cast, get_args, get_origin

import attrs
import cattrs
from cattrs.errors import BaseValidationError, ClassValidationError, IterableValidationError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn, override

from deploykit.errors import DeploykitError, MessageError
from deploykit.messages import Message
from deploykit.wire import field_types
from deploykit.wire.envelope import and_more, extensions_of
from deploykit.wire.field_types import CARRIED, ENVELOPE, Leaf, ListOf
from deploykit.wire.forms import form_problems
from deploykit.wire.quickreader import check_extensions, check_extra, check_list, check_object, thread
from deploykit.wire.strictjson import MAX_ITEMS

S = TypeVar("S", Leaf, ListOf)
_Hook = Callable[[Any, Any], Any]

# The envelope's fields travel to the converter beside those of `data`. Their keys begin with half of a surrogate pair,
# which no body can hold (strictjson refuses it), so that no field of `data` can pass for them.
_MARK: Final = "\ud800"
_ID, _SOURCE, _TIME, _THREAD = (_MARK + name for name in ENVELOPE)
_EXTRA, _EXTENSIONS = (_MARK + name for name in CARRIED)


def explained(cls: type[Message], event: Mapping[str, Any], data: Mapping[str, Any]) -> MessageError:
    """Return the error for a CloudEvent that holds no message of `cls`, with everything that is wrong in `problems`.

    Args:
        cls: the class of its type.
        event: the whole of it.
        data: its object `data`.
    """
    known = frozenset(f.name for f in field_types.fields(cls))
    flat = {
        **data,
        _ID: event.get("id"),
        _SOURCE: event.get("source"),
        _TIME: event.get("time"),
        _THREAD: event.get("correlationid"),
        _EXTRA: {k: v for k, v in data.items() if k not in known},
        _EXTENSIONS: extensions_of(event),
    }
    found = [f"data.{problem}" for problem in form_problems(cls, data)]
    try:
        _converter().structure(flat, cls)
    except BaseValidationError as e:
        found = found or _problem_lines(e, "", frozenset(ENVELOPE + CARRIED))
    found = found or ["not acceptable"]
    return MessageError(f"{cls.__name__}: {found[0]}", and_more(found), problems=tuple(found))


def _problem_lines(error: BaseException, path: str, envelope: frozenset[str] = frozenset()) -> list[str]:
    """Return what cattrs collected as lines "path: what was expected", without values."""
    match error:
        case ClassValidationError():
            with_notes, others = error.group_exceptions()
            found = []
            for e, note in with_notes:
                prefix = "" if not envelope or note.name in envelope else "data."
                name = "correlationid" if envelope and note.name == "correlation_id" else note.name
                found += _problem_lines(e, f"{path}{prefix}{name}" if not path else f"{path}.{name}")
            return found + [line for e in others for line in _problem_lines(e, path or "data")]
        case IterableValidationError():
            pairs, others = error.group_exceptions()
            return [line for e, note in pairs for line in _problem_lines(e, f"{path}[{note.index}]")] + [
                line for e in others for line in _problem_lines(e, path)
            ]
        case KeyError():
            return [f"{path}: is missing"]
        case DeploykitError():
            return [f"{path}: {error.problem}"]
        case _:
            return [f"{path}: not acceptable"]


# -- the converters --------------------------------------------------------------------------------------------------


@cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    for hint in (str, int, bool, datetime):  # cattrs would convert these (5 -> "5"), and asks no factory about them
        converter.register_structure_hook(hint, _leaf_hook(cast(Leaf, field_types.field_type(hint))))
    converter.register_structure_hook_factory(
        lambda hint: _type_if(hint, Leaf) is not None,
        lambda hint: _leaf_hook(cast(Leaf, field_types.field_type(hint))),
    )
    converter.register_structure_hook_factory(
        lambda hint: _type_if(hint, ListOf) is not None,
        lambda hint: _list_hook(hint, converter),
    )
    converter.register_structure_hook_factory(
        lambda hint: isinstance(hint, type) and attrs.has(hint), lambda cls: _class_hook(cls, converter)
    )
    return converter


def _type_if(hint: object, wanted: type[S]) -> S | None:
    try:
        found = field_types.field_type(hint)
    except TypeError:
        return None
    return found if isinstance(found, wanted) else None


def _leaf_hook(leaf: Leaf) -> _Hook:
    check = leaf.check

    def explaining(value: Any, _hint: Any) -> Any:
        try:
            return check(value)
        except (DeploykitError, TypeError, ValueError):
            raise MessageError(f"expected {leaf.expected}") from None

    return explaining


def _list_hook(list_hint: Any, converter: cattrs.Converter) -> _Hook:
    kind = cast(ListOf, field_types.field_type(list_hint))
    plain = get_args(list_hint)[0] if get_origin(list_hint) is Annotated else list_hint
    item = converter.get_structure_hook(get_args(plain)[0])
    most = kind.most or MAX_ITEMS

    def explaining(values: Any, hint: Any) -> Any:
        check_list(values, most)
        read: list[Any] = []
        errors: list[Exception] = []
        for index, value in enumerate(values):
            try:
                read.append(item(value, None))
            except (DeploykitError, BaseValidationError) as e:
                e.add_note(IterableValidationNote(f"@ index {index}", index, None))
                errors.append(e)
        if errors:
            raise IterableValidationError("list", errors, hint)
        return tuple(read)

    return explaining


def _class_hook(cls: type, converter: cattrs.Converter) -> _Hook:
    envelope = {name: override(rename=_MARK + name) for name in ENVELOPE if issubclass(cls, Message)}
    if envelope:
        envelope["correlation_id"] = override(rename=_THREAD, struct_hook=_thread)
        envelope["extensions"] = override(rename=_EXTENSIONS, struct_hook=_extensions)
    envelope |= {name: override(omit=True) for name in field_types.never_written(cls)}
    make: _Hook = make_dict_structure_fn(
        cls,
        converter,
        extra=override(rename=_EXTRA, struct_hook=_extra),
        **envelope,  # type: ignore[arg-type]
    )
    if issubclass(cls, Message):
        return make
    known = frozenset(f.name for f in field_types.fields(cls))

    def nested(value: Any, _hint: Any) -> Any:
        check_object(value)
        if not known.issuperset(value):
            value = {**value, _EXTRA: {k: v for k, v in value.items() if k not in known}}
        return make(value, cls)

    return nested


def _thread(value: Any, _hint: Any) -> str:
    return thread(value)


def _extra(value: Any, _hint: Any) -> Any:
    return check_extra(value)


def _extensions(value: Any, _hint: Any) -> Any:
    return check_extensions(value)


__all__ = ["explained"]
