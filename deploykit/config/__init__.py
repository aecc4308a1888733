"""One TOML file -> `Settings`. All mistakes are reported at once, each with its path and what was expected.

Secrets: `passcode_file = "PATH"` or `passcode = "env:NAME"` keep them out of the file. A file that holds one itself
must be readable by its owner alone (0600), or by the daemon's group too (0640).
"""

from __future__ import annotations

import difflib
import os
import re
import socket
import stat
import tomllib
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import cattrs
from cattrs.errors import (
    AttributeValidationNote,
    BaseValidationError,
    ForbiddenExtraKeysError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn

from deploykit.config.crosschecks import mistakes, site_mistakes
from deploykit.errors import DeploykitError, InvalidName, SettingsError
from deploykit.messages.topics import with_preset
from deploykit.names import (
    NodeName,
    RepoName,
    SiteName,
    parse_node_name,
    parse_repo_name,
    parse_site_name,
)
from deploykit.settings.bus import BusSettings
from deploykit.settings.node import Settings
from deploykit.settings.site import SiteSettings
from deploykit.system.ownership import OthersCanChange, require_owned

DEFAULT_PATH: Final = Path("/etc/deploykit/deploykit.toml")

_SECRET_MODE: Final = 0o640
_MOST: Final = 1e9  # as seconds 31 years, and well within what locks can wait


def load_settings(path: Path | None = None, *, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings file; without a path, `$DEPLOYKIT_CONFIG` or `/etc/deploykit/deploykit.toml`.

    Raises:
        SettingsError: the file cannot be read, is not TOML, or holds mistakes (`problems` has all of them).
    """
    environ = os.environ if environ is None else environ
    path = path or Path(environ.get("DEPLOYKIT_CONFIG") or DEFAULT_PATH)
    raw, mode = _read(path, "give another file with --config, or create it")
    return parse_settings(raw, where=str(path), mode=mode, environ=environ)


def _read(path: Path, remedy: str) -> tuple[bytes, int]:
    """Return what a settings file holds, and its mode. Root reads none that others can change: they would be root."""
    try:
        with path.open("rb") as file:
            if os.geteuid() == 0:
                require_owned(str(path), file.fileno(), frozenset({0}))
            return file.read(), stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except OthersCanChange as found:
        raise SettingsError(f"settings {path} are not read as root: {found.why}", found.remedy) from None
    except OSError as error:
        raise SettingsError(f"cannot read settings {path}: {error.strerror}", remedy) from error


def parse_settings(
    raw: bytes, *, where: str = "settings", mode: int | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Turn the bytes of a settings file into `Settings`.

    Args:
        raw: TOML, UTF-8.
        where: what to call the file in an error.
        mode: the file's permission bits, checked when it holds a secret; None skips the check.
        environ: where `env:NAME` looks.

    Raises:
        SettingsError: with every mistake in `problems`.
    """
    try:
        data = tomllib.loads(raw.decode())
    except ValueError as error:  # also a number of thousands of digits
        raise SettingsError(f"{where} is not TOML: {error}", "correct the line it names") from error
    except RecursionError:
        raise SettingsError(f"{where} is nested too deep to be settings", "write fewer brackets") from None
    problems: list[str] = []
    _resolve_secrets(data, mode, os.environ if environ is None else environ, problems)
    data.setdefault("node", _own_name())
    problems += _bad_keys(data)
    if isinstance(data.get("topics"), dict):
        try:
            data["topics"] = with_preset(data["topics"])
        except ValueError as error:
            problems.append(f"topics.{error}")
            del data["topics"]
    repositories, grants = list(_table(data, "repositories")), _table(data, "trust").get("grants", ())
    rest: Settings | None
    settings: Settings | None = None
    try:
        rest = settings = _CONVERTER.structure(data, Settings)
    except BaseValidationError as group:
        problems += _explain(group, "", Settings)
        rest = _without_mistakes(data)
    if rest is not None:
        problems += _check_address(rest.broker.address)
        whole = isinstance(grants, list | tuple) and len(grants) == len(rest.trust.grants)
        problems += mistakes(rest, repositories=repositories, grants=whole)
        told = {problem.partition(":")[0] for problem in problems}
        problems += (line for line in _check_bus(rest.broker) if line.partition(":")[0] not in told)
    if problems or settings is None:
        found = tuple(dict.fromkeys(problems))
        head = f"{where}: {found[0]}" if len(found) == 1 else f"{where} has {len(found)} mistakes"
        raise SettingsError(head, problems=(head,) if len(found) == 1 else found)
    return settings


def load_site_settings(path: Path | None, site: Path) -> SiteSettings:
    """Read the settings of the site at directory `site`: from the node's settings file, or from a file of its own.

    Args:
        path: a `deploykit.toml` that has the site, or a TOML file with a site's release settings alone. Without one,
            the node's own file where there is one that has the site, and the defaults where not.

    Raises:
        SettingsError: the file cannot be read, holds mistakes, or does not know the site.
    """
    if path is not None:
        try:
            data = tomllib.loads(_read(path, "give another file")[0].decode())
        except ValueError as error:
            raise SettingsError(f"{path} is not TOML: {error}", "correct the line it names") from error
        if "sites" not in data and "node" not in data:
            return _site_settings(data, path)
    elif not Path(os.environ.get("DEPLOYKIT_CONFIG") or DEFAULT_PATH).exists():
        return SiteSettings()
    for found in load_settings(path).sites.values():
        if found.path.resolve() == site.resolve():
            return found.release
    if path is None:
        return SiteSettings()
    raise SettingsError(f"{path} has no site at {site}", "correct the path, or give a file of release settings alone")


def _site_settings(data: dict[str, Any], path: Path) -> SiteSettings:
    try:
        settings = _CONVERTER.structure(data, SiteSettings)
        found = tuple(site_mistakes(settings))
    except BaseValidationError as group:
        found = tuple(dict.fromkeys(_explain(group, "", SiteSettings)))
    if found:
        head = f"{path}: {found[0]}" if len(found) == 1 else f"{path} has {len(found)} mistakes"
        raise SettingsError(head, problems=(head,) if len(found) == 1 else found)
    return settings


def _table(data: dict[str, Any], name: str) -> dict[str, Any]:
    found = data.get(name)
    return found if isinstance(found, dict) else {}


def _own_name() -> str:
    return socket.gethostname().split(".")[0] or "localhost"


def _resolve_secrets(data: dict[str, Any], mode: int | None, environ: Mapping[str, str], problems: list[str]) -> None:
    """Replace `passcode_file` and `env:` references in `[broker]` by what they stand for."""
    broker = data.get("broker")
    if not isinstance(broker, dict):
        return
    literal = isinstance(broker.get("passcode"), str) and not broker["passcode"].startswith("env:")
    literal |= _holds_passcode(str(broker.get("address", "")))
    if literal and mode is not None and mode & ~_SECRET_MODE:
        problems.append(
            f"broker: the file holds a passcode but has mode {mode:04o} (chmod 0600 it, or use passcode_file)"
        )
    for key in ("login", "passcode", "address"):
        value = broker.get(key)
        if isinstance(value, str) and value.startswith("env:"):
            if value[4:] not in environ:
                problems.append(f"broker.{key}: environment variable {value[4:]} is not set")
            broker[key] = environ.get(value[4:], "")
    secret_file = broker.pop("passcode_file", None)
    if secret_file is None:
        return
    if "passcode" in broker:
        problems.append("broker: give passcode or passcode_file, not both")
    try:
        with _path(secret_file, Path).open("rb") as file:
            file_mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            broker["passcode"] = file.read(4096).decode().rstrip("\r\n")
        if file_mode & ~_SECRET_MODE:
            problems.append(f"broker.passcode_file: {secret_file} has mode {file_mode:04o} (chmod 0600 or 0640 it)")
    except _Expected as error:
        problems.append(f"broker.passcode_file: {error}")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        problems.append(f"broker.passcode_file: cannot read {secret_file}: {reason}")


def _holds_passcode(address: str) -> bool:
    from deploykit.settings.address import parse_address

    try:
        return any(broker.passcode for broker in parse_address(address).brokers)
    except DeploykitError:
        return "@" in address  # it is told that it is not understood; what it holds is anybody's guess


def _bad_keys(data: dict[str, Any]) -> list[str]:
    """Find tables whose name is not acceptable: cattrs would tell of them only when all they hold is right."""
    problems = []
    for table, parse in (("repositories", parse_repo_name), ("sites", parse_site_name)):
        entries = data.get(table)
        for key in entries if isinstance(entries, dict) else ():
            try:
                parse(key)
            except InvalidName as error:
                problems.append(f"{table}.{key}: {error}")
    return problems


def _check_address(address: str) -> list[str]:
    from deploykit.settings.address import parse_address

    try:
        parse_address(address)
    except DeploykitError as error:
        return [f"broker.address: {error}"]
    return []


def _check_bus(broker: BusSettings) -> tuple[str, ...]:
    """What every bus would refuse, so that it is told before a daemon is started."""
    from deploykit.bus.checks import check_settings

    try:
        check_settings(broker)
    except SettingsError as error:
        return error.problems
    return ()


# -- conversion ------------------------------------------------------------------------------------------------------


class _Expected(ValueError):
    """A value of the wrong kind; the text says what was expected."""


_KINDS: Final = {
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "a table",
}


def _exactly(kind: type, said: str) -> Any:
    def hook(value: object, _: type) -> object:
        if type(value) is not kind:
            raise _Expected(f"expected {said}, not {_kind_of(value)}")
        return value

    return hook


def _kind_of(value: object) -> str:
    """Name what was given instead, never what it holds: that may be a passcode."""
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
    if type(value) not in (int, float) or not 0 <= float(typing.cast(float, value)) < _MOST:
        shown = value if type(value) in (int, float) else _kind_of(value)
        raise _Expected(f"expected a number of at least 0 and below {_MOST:g}, not {shown}")
    return float(typing.cast(float, value))


def _path(value: object, _: type) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise _Expected(f"expected a path, not {_kind_of(value) if value else 'nothing'}")
    return Path(value)


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    converter.register_structure_hook(str, _exactly(str, "a string"))
    converter.register_structure_hook(int, _exactly(int, "a whole number"))
    converter.register_structure_hook(bool, _exactly(bool, "true or false"))
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(Path, _path)
    for name, parse in ((NodeName, parse_node_name), (RepoName, parse_repo_name), (SiteName, parse_site_name)):
        _register_name(converter, name, parse)
    # A table must be a table, a list a list: cattrs would take any iterable, a string too.
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
    key, item = typing.get_args(kind)

    def hook(value: object, _: type) -> object:
        if not isinstance(value, Mapping):  # a preset's is no dict
            raise _Expected(f"expected a table, not {_kind_of(value)}")
        return converter.structure(value, dict[key, item])  # type: ignore[valid-type]  # both are known only here

    return hook


def _table_hook(cls: type, converter: cattrs.Converter) -> Any:
    build: Any = make_dict_structure_fn(
        cls, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True
    )

    def hook(value: object, kind: type) -> object:
        if not isinstance(value, dict):
            raise _Expected(f"expected a table, not {_kind_of(value)}")
        return build(value, kind)

    return hook


def _list_hook(kind: Any, converter: cattrs.Converter) -> Any:
    item = typing.get_args(kind)[0]

    def hook(value: object, _: type) -> object:
        if not isinstance(value, list):
            raise _Expected(f"expected a list, not {_kind_of(value)}")
        return tuple(converter.structure(list(value), list[item]))  # type: ignore[valid-type]  # known only here

    return hook


_CONVERTER: Final = _make_converter()
_TOO_SMALL: Final = re.compile(r"'(\w+)' must be >= (\S+):").match  # how a validator of attrs says it


# -- mistakes --------------------------------------------------------------------------------------------------------


def _without_mistakes(data: dict[str, Any]) -> Settings | None:
    """Take out of `data` what is wrong by itself and read the rest, for the checks on what goes together."""
    for _ in range(20):  # leaving one value out can make a table one that lacks it
        try:
            return _CONVERTER.structure(data, Settings)
        except BaseValidationError as group:
            for place in reversed(list(_places(group, ()))):  # of a list the last first: the others keep their place
                _remove(data, place)
    return None


def _places(error: BaseException, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if isinstance(error, ForbiddenExtraKeysError):
        yield from ((*path, key) for key in sorted(error.extra_fields))
    elif isinstance(error, BaseExceptionGroup):
        for child in error.exceptions:
            notes = getattr(child, "__notes__", ())
            steps: list[Any] = [note.name for note in notes if isinstance(note, AttributeValidationNote)]
            steps += [note.index for note in notes if isinstance(note, IterableValidationNote)]
            yield from _places(child, (*path, *steps[:1]))
    else:
        yield path


def _remove(data: Any, place: tuple[Any, ...]) -> None:
    """Remove what is at a place; where nothing is, what lacks it."""
    for length in range(len(place), 0, -1):
        holder = data
        try:
            for step in place[: length - 1]:
                holder = holder[step]
            del holder[place[length - 1]]
        except (KeyError, IndexError, TypeError):
            continue
        return


def _explain(error: BaseException, path: str, kind: Any) -> list[str]:
    """Turn cattrs' tree of errors into lines `path: what was expected`."""
    if isinstance(error, BaseExceptionGroup):
        lines: list[str] = []
        for child in error.exceptions:
            step, child_kind = _step_of(child)
            joined = f"{path}{step}" if step.startswith("[") else f"{path}.{step}".strip(".")
            lines += _explain(child, joined, child_kind if child_kind is not None else kind)
        return lines
    if isinstance(error, ForbiddenExtraKeysError):
        return [_unknown(f"{path}.{key}".strip("."), key, error.cl) for key in sorted(error.extra_fields)]
    if isinstance(error, KeyError):
        return [f"{path}: required, but missing"]
    if isinstance(error, _Expected | DeploykitError):
        return [f"{path}: {error}"]
    if typing.get_origin(kind) is typing.Literal:
        return [f"{path}: expected one of {', '.join(map(repr, typing.get_args(kind)))}"]
    below = _TOO_SMALL(str(error))
    return [f"{path}.{below[1]}: expected at least {below[2]}".strip(".") if below else f"{path}: {error}"]


def _step_of(error: BaseException) -> tuple[str, Any]:
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return note.name, note.type
        if isinstance(note, IterableValidationNote):
            return (f"[{note.index}]" if isinstance(note.index, int) else str(note.index)), note.type
    return "", None


def _unknown(path: str, key: str, cls: type | None) -> str:
    known = [f.name for f in attrs.fields(cls)] if cls is not None and attrs.has(cls) else []
    close = difflib.get_close_matches(key, known, n=1)
    return f"{path}: unknown setting" + (f" (did you mean {close[0]}?)" if close else f" (known: {', '.join(known)})")


__all__ = ["DEFAULT_PATH", "load_settings", "load_site_settings", "parse_settings"]
