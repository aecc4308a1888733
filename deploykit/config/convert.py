"""Parsed TOML -> settings classes, by cattrs: strict about kinds, and every error at once.

Rules: a table must be a table and a list a list (cattrs would take any iterable, a string too); an unknown key is an
error; an error names the kind of value that was given, never the value, which may be a passcode.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from datetime import date, time
from pathlib import Path
from typing import Any, Final

import attrs
import cattrs
from cattrs.errors import IterableValidationError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn

from deploykit.names import NodeName, RepoName, SiteName, parse_node_name, parse_repo_name, parse_site_name
from deploykit.settings.node import Settings
from deploykit.settings.problems import LONGEST
from deploykit.settings.site import SiteSettings


class WrongKind(ValueError):
    """A value of the wrong kind; the text says what was expected."""


def to_settings(data: object) -> Settings:
    """Convert a parsed `deploykit.toml`.

    Raises:
        BaseValidationError: with an error for everything that cannot be converted; see `explain`.
    """
    return _CONVERTER.structure(data, Settings)


def to_site_settings(data: object) -> SiteSettings:
    """Convert a parsed file of release settings.

    Raises:
        BaseValidationError: as `to_settings`.
    """
    return _CONVERTER.structure(data, SiteSettings)


def _exactly(kind: type, name: str) -> Any:
    def hook(value: object, _: type) -> object:
        if type(value) is not kind:
            raise WrongKind(f"expected {name}, not {_kind_of(value)}")
        return value

    return hook


def _kind_of(value: object) -> str:
    kinds = {
        str: "a string",
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "a table",
    }
    return kinds.get(type(value), "a date or time")


def _number(value: object, _: type) -> float:
    if type(value) not in (int, float) or not 0 <= float(typing.cast(float, value)) < LONGEST:
        shown = value if type(value) in (int, float) else _kind_of(value)
        raise WrongKind(f"expected a number of at least 0 and below {LONGEST:g}, not {shown}")
    return float(typing.cast(float, value))


def _path(value: object, _: type) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise WrongKind(f"expected a path, not {_kind_of(value) if value else 'nothing'}")
    return Path(value)


def _plain(value: object) -> object:
    """Return a value whose kind the settings leave open, a date or time as text."""
    if isinstance(value, list):
        return tuple(map(_plain, value))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.isoformat() if isinstance(value, date | time) else value


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    converter.register_structure_hook(str, _exactly(str, "a string"))
    converter.register_structure_hook(int, _exactly(int, "a whole number"))
    converter.register_structure_hook(bool, _exactly(bool, "true or false"))
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(Path, _path)
    converter.register_structure_hook_func(lambda kind: kind is object, lambda value, _: _plain(value))
    for name, parse in ((NodeName, parse_node_name), (RepoName, parse_repo_name), (SiteName, parse_site_name)):
        _register_name(converter, name, parse)
    converter.register_structure_hook_factory(attrs.has, lambda cls: _table_hook(cls, converter))
    converter.register_structure_hook_factory(_is_tuple, lambda kind: _list_hook(kind, converter))
    converter.register_structure_hook_factory(_is_mapping, lambda kind: _map_hook(kind, converter))
    return converter


def _register_name(converter: cattrs.Converter, name: Any, parse: Callable[[str], str]) -> None:
    def hook(value: Any, _: Any) -> str:
        return parse(value)

    converter.register_structure_hook_func(lambda kind: kind is name, hook)


def _is_tuple(kind: Any) -> bool:
    return typing.get_origin(kind) is tuple


def _is_mapping(kind: Any) -> bool:
    return typing.get_origin(kind) is Mapping


def _map_hook(kind: Any, converter: cattrs.Converter) -> Any:
    """Convert keys and values, each by itself: cattrs would report a wrong key only where all values are right."""
    key_kind, item_kind = typing.get_args(kind)

    def hook(value: object, _: type) -> object:
        if not isinstance(value, Mapping):  # a preset's is no dict
            raise WrongKind(f"expected a table, not {_kind_of(value)}")
        found, errors = {}, list[Exception]()
        for key, item in value.items():
            pair = []
            for part, part_kind in ((key, key_kind), (item, item_kind)):
                try:
                    pair.append(converter.structure(part, part_kind))
                except Exception as error:  # noqa: BLE001 -- gathered with the others and raised below
                    error.add_note(IterableValidationNote("", key, part_kind))
                    errors.append(error)
            if len(pair) == 2:
                found[pair[0]] = pair[1]
        if errors:
            raise IterableValidationError("while converting a table", errors, dict)
        return found

    return hook


def _table_hook(cls: type, converter: cattrs.Converter) -> Any:
    build: Any = make_dict_structure_fn(
        cls, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True
    )

    def hook(value: object, kind: type) -> object:
        if not isinstance(value, dict):
            raise WrongKind(f"expected a table, not {_kind_of(value)}")
        return build(value, kind)

    return hook


def _list_hook(kind: Any, converter: cattrs.Converter) -> Any:
    item_kind = typing.get_args(kind)[0]

    def hook(value: object, _: type) -> object:
        if not isinstance(value, list):
            raise WrongKind(f"expected a list, not {_kind_of(value)}")
        return tuple(converter.structure(list(value), list[item_kind]))  # type: ignore[valid-type]  # known only here

    return hook


_CONVERTER: Final = _make_converter()
