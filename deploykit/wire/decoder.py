"""JSON values to messages, through cattrs converters made once. Loaded by the first decode only.

Two converters with the same hooks: a quick one, which stops at the first problem, and one that collects them all. The
second runs only over what the first refused, so that valid messages do not pay for explanations.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Final, TypeVar, cast, get_args, get_origin

import attrs
import cattrs
from cattrs.errors import BaseValidationError, ClassValidationError, IterableValidationError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn, override

from deploykit.errors import DeploykitError, MessageError
from deploykit.messages import Message
from deploykit.wire import batch, field_types
from deploykit.wire.envelope import OWN, and_more, extension_problems, extensions_of, is_json_media
from deploykit.wire.field_types import CARRIED, ENVELOPE, Leaf, ListOf
from deploykit.wire.strictjson import MAX_ITEMS, within_limits

M = TypeVar("M", bound=Message)
S = TypeVar("S", Leaf, ListOf)
_Hook = Callable[[Any, Any], Any]

# The envelope's fields travel to the converter beside those of `data`. Their keys begin with half of a surrogate pair,
# which no body can hold (strictjson refuses it), so that no field of `data` can pass for them.
_MARK: Final = "\ud800"
_ID, _SOURCE, _TIME, _THREAD = (_MARK + name for name in ENVELOPE)
_EXTRA, _EXTENSIONS = (_MARK + name for name in CARRIED)


def read_event(cls: type[M], event: dict[str, Any]) -> M:
    """Return the message that a parsed CloudEvent of the type of `cls` holds.

    Raises:
        MessageError: it is no such message; `problems` has everything that is wrong, each with its path.
    """
    data = event.get("data")
    if data.__class__ is not dict or "data_base64" in event or not is_json_media(event.get("datacontenttype")):
        raise MessageError(f"{cls.TYPE}: data: expected a JSON object", "datacontenttype says JSON, or nothing")
    known, never, quick = _reader(cls)
    if never and not never.isdisjoint(data):
        raise MessageError(
            f"{cls.TYPE}: {', '.join(sorted(never))}: never on this wire", "the sender must leave it out"
        )
    flat = {
        **data,
        _ID: event.get("id"),
        _SOURCE: event.get("source"),
        _TIME: event.get("time"),
        _THREAD: event.get("correlationid"),
    }
    if not known.issuperset(data):
        flat[_EXTRA] = {k: v for k, v in data.items() if k not in known}
    if not OWN.issuperset(event):
        flat[_EXTENSIONS] = extensions_of(event)
    try:
        return cast(M, quick(flat, cls))
    except (DeploykitError, KeyError, TypeError, ValueError, AttributeError):
        raise _explained(cls, flat) from None


@field_types.per_class
def _reader(cls: type) -> tuple[frozenset[str], frozenset[str], _Hook]:
    """Return the names of the fields of `data`, those that must not be there, and the quick converter's function."""
    known = frozenset(f.name for f in field_types.fields(cls))
    return known, field_types.never_written(cls), _converter(detailed=False).get_structure_hook(cls)


def _explained(cls: type, flat: dict[str, Any]) -> MessageError:
    try:
        _converter(detailed=True).structure(flat, cls)
    except BaseValidationError as e:
        found = _problem_lines(e, "", frozenset(ENVELOPE + CARRIED))
    else:
        found = ["not acceptable"]
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
            return found + [line for e in others for line in _problem_lines(e, path)]
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
def _converter(*, detailed: bool) -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=detailed)
    for hint in (str, int, bool, datetime):  # cattrs would convert these (5 -> "5"), and asks no factory about them
        converter.register_structure_hook(hint, _leaf_hook(cast(Leaf, field_types.field_type(hint)), detailed=detailed))
    converter.register_structure_hook_factory(
        lambda hint: _type_if(hint, Leaf) is not None,
        lambda hint: _leaf_hook(cast(Leaf, field_types.field_type(hint)), detailed=detailed),
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


def _leaf_hook(leaf: Leaf, *, detailed: bool) -> _Hook:
    check = leaf.check

    def quick(value: Any, _hint: Any) -> Any:
        return check(value)

    def explaining(value: Any, _hint: Any) -> Any:
        try:
            return check(value)
        except (DeploykitError, TypeError, ValueError):
            raise MessageError(f"expected {leaf.expected}") from None

    return explaining if detailed else quick


def _list_hook(list_hint: Any, converter: cattrs.Converter) -> _Hook:
    kind = cast(ListOf, field_types.field_type(list_hint))
    plain = get_args(list_hint)[0] if get_origin(list_hint) is Annotated else list_hint
    item = converter.get_structure_hook(get_args(plain)[0])
    read_batch = batch.batch_reader(kind.item)

    def bounded(values: Any) -> None:
        most = kind.most or MAX_ITEMS
        if values.__class__ is not list or len(values) > most:
            raise MessageError(f"expected a list of at most {most}")

    def quick(values: Any, _hint: Any) -> Any:
        bounded(values)
        made = read_batch(values) if read_batch and values else None
        return tuple([item(value, None) for value in values]) if made is None else made

    def explaining(values: Any, hint: Any) -> Any:
        bounded(values)
        errors: list[Exception] = []
        for index, value in enumerate(values):
            try:
                item(value, None)
            except (DeploykitError, BaseValidationError) as e:
                e.add_note(IterableValidationNote(f"@ index {index}", index, None))
                errors.append(e)
        if errors:
            raise IterableValidationError("list", errors, hint)
        return ()

    return explaining if converter.detailed_validation else quick


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
        if value.__class__ is not dict:
            raise MessageError("expected an object")
        if not known.issuperset(value):
            value = {**value, _EXTRA: {k: v for k, v in value.items() if k not in known}}
        return make(value, cls)

    return nested


def _thread(value: Any, _hint: Any) -> str:
    try:
        return "" if value is None else field_types.identifier(value)
    except MessageError:
        raise MessageError("expected 1 to 255 printable characters, or none") from None


def _extra(value: Any, _hint: Any) -> Any:
    if not within_limits(value):
        raise MessageError("unknown fields are over the limits on depth or length")
    return value


def _extensions(value: Any, _hint: Any) -> Any:
    found = extension_problems(value)
    if found:
        raise MessageError(found[0])
    return value
