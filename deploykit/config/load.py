"""TOML files -> `Settings`. All problems are reported at once, each with its path and what was expected.

Rules:
* What cannot be converted is explained, and what is left is checked too, so that one run finds everything.
* Each family checks itself (`problems()`); `crosschecks` finds what needs more than one.
* A file that holds a passcode is read only where its mode is 0600 or 0640.
"""

from __future__ import annotations

import logging
import os
import socket
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
from cattrs.errors import BaseValidationError

from deploykit.bus.passcode import PasscodeHolder, read_passcode
from deploykit.config.convert import to_settings, to_site_settings
from deploykit.config.crosschecks import problems as cross_problems
from deploykit.config.explain import explain, without
from deploykit.config.files import DEFAULT_PATH, DIRECTORY, SettingsFile, main_path, read_file, read_files
from deploykit.config.merge import merge
from deploykit.config.passcodes import mode_problems, resolve_environment
from deploykit.errors import SettingsError
from deploykit.messages.topics import with_preset
from deploykit.names import RepoName
from deploykit.settings.node import Settings
from deploykit.settings.site import SiteSettings

_log = logging.getLogger(__name__)


def load_settings(path: Path | None = None, *, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings file and those in `conf.d` beside it.

    Args:
        path: a `deploykit.toml`; default: `$DEPLOYKIT_CONFIG` or `/etc/deploykit/deploykit.toml`.
        environ: where `$DEPLOYKIT_CONFIG` and `env:NAME` are looked up; the process's own when None.

    Raises:
        SettingsError: a file cannot be read, is not TOML, or is wrong (`problems` has all that is).
    """
    environ = os.environ if environ is None else environ
    main = main_path(path, environ)
    files, unreadable = read_files(main)
    _log.info("settings read from %s", ", ".join(str(file.path) for file in files))
    return _settings_of(files, unreadable, environ)


def locator(path: Path | None = None, *, environ: Mapping[str, str] | None = None) -> Callable[[str], str]:
    """Return what puts the file before a line `path: problem`, for lines about settings that `load_settings` returned.

    Where there is one file alone, a line stays as it is.
    """
    files, _ = read_files(main_path(path, os.environ if environ is None else environ))
    if len(files) == 1:
        return str
    return merge([(str(file.path), _parse_toml(file.raw, str(file.path))) for file in files]).located


def parse_settings(
    raw: bytes, *, where: str = "settings", mode: int | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Turn the bytes of a settings file into `Settings`.

    Args:
        raw: TOML, UTF-8.
        where: what to call the file in an error.
        mode: the file's permission bits, checked when it holds a secret; None skips the check.
        environ: where `env:NAME` is looked up; the process's own when None.

    Raises:
        SettingsError: with everything that is wrong in `problems`.
    """
    data = _parse_toml(raw, where)
    return _check_all(data, where, mode_problems(data, mode), os.environ if environ is None else environ)


def _settings_of(files: Sequence[SettingsFile], unreadable: list[str], environ: Mapping[str, str]) -> Settings:
    """Turn the files into settings. Where there are several, each problem begins with the file it stands in."""
    where = str(files[0].path)
    if len(files) == 1 and not unreadable:
        return parse_settings(files[0].raw, where=where, mode=files[0].mode, environ=environ)
    where += f" with {DIRECTORY}"
    parsed: list[tuple[str, dict[str, Any]]] = []
    problems = list(unreadable)
    for file in files:
        try:
            parsed.append((str(file.path), _parse_toml(file.raw, str(file.path))))
        except SettingsError as error:
            problems.append(str(error))
        else:
            problems += (f"{file.path}: {problem}" for problem in mode_problems(parsed[-1][1], file.mode))
    if unreadable or len(parsed) < len(files):
        raise _refusal(where, problems, located=True)
    merged = merge(parsed)
    return _check_all(merged.data, where, [*problems, *merged.problems], environ, merged.located)


def _check_all(
    data: dict[str, Any],
    where: str,
    problems: list[str],
    environ: Mapping[str, str],
    located: Callable[[str], str] = str,
) -> Settings:
    """Convert and check what was read.

    Args:
        data: all of it; changed in place.
        where: what to call it in an error.
        problems: what was found before.
        environ: where `env:NAME` is looked up.
        located: puts the file before a problem that begins with its path.

    Raises:
        SettingsError: with everything that is wrong in `problems`.
    """
    found = resolve_environment(data, environ)
    data.setdefault("node", _own_name())
    legacy = data.get("legacy") is True
    if isinstance(data.setdefault("topics", {}) if legacy else data.get("topics"), dict):
        try:
            data["topics"] = with_preset(data["topics"], legacy=legacy)
        except ValueError as error:
            found.append(f"topics.{error}")
            del data["topics"]
    named = data.get("repositories")
    repositories = tuple(named) if isinstance(named, dict) else ()
    settings: Settings | None
    readable: Settings | None
    as_before: Callable[[str], str] = str
    try:
        readable = settings = to_settings(data)
    except BaseValidationError as error:
        found += explain(error, Settings)
        settings, (readable, as_before) = None, without(error, data, to_settings)
    if readable is not None:
        more = [*readable.problems(), *_passcode_problems(readable)]
        more += cross_problems(readable, repositories=repositories)
        found += map(as_before, more)
    problems += map(located, found)
    if problems or settings is None:
        raise _refusal(where, problems, located=located is not str)
    return settings


#: A file with one of these is a node's, not a site's alone.
_OF_A_NODE: Final = {field.name for field in attrs.fields(Settings)} - {
    field.name for field in attrs.fields(SiteSettings)
}


@attrs.frozen(kw_only=True, slots=True)
class SiteFound:
    """The settings of a site at some directory.

    Args:
        release: how its releases are made.
        node: the settings of the node whose site it is; None where it is none's.
        parts: its repositories and their subdirectories, where it is made of several.
    """

    release: SiteSettings
    node: Settings | None = None
    parts: Mapping[RepoName, str] = attrs.field(factory=dict)


def load_site_settings(path: Path | None, site: Path) -> SiteSettings:
    """Read how releases are made of the site at directory `site`. See `load_site`."""
    return load_site(path, site).release


def load_site(path: Path | None, site: Path) -> SiteFound:
    """Read the settings of the site at directory `site`: from the node's settings file, or from a file of its own.

    Args:
        path: a `deploykit.toml` that has the site, or a TOML file with a site's release settings alone. Without one,
            the node's own file where there is one that has the site, and the defaults where not.
        site: the site's directory.

    Raises:
        SettingsError: the file cannot be read, is wrong, or does not know the site.
    """
    if path is not None:
        data = _parse_toml(read_file(path, "give another file").raw, str(path))
        if not data.keys() & _OF_A_NODE:
            return SiteFound(release=_parse_site_settings(data, str(path)))
    elif not Path(os.environ.get("DEPLOYKIT_CONFIG") or DEFAULT_PATH).exists():
        return SiteFound(release=SiteSettings())
    node = load_settings(path)
    for found in node.sites.values():
        if found.path.resolve() == site.resolve():
            return SiteFound(release=found.release, node=node, parts=found.parts)
    if path is None:
        return SiteFound(release=SiteSettings())
    raise SettingsError(f"{path} has no site at {site}", "correct the path, or give a file of release settings alone")


def _parse_toml(raw: bytes, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(raw.decode())
    except ValueError as error:  # also a number of thousands of digits
        raise SettingsError(f"{where} is not TOML: {error}", "correct the line it names") from error
    except RecursionError:
        raise SettingsError(f"{where} is nested too deep to be settings", "write fewer brackets") from None


def _parse_site_settings(data: dict[str, Any], where: str) -> SiteSettings:
    """Convert a file of release settings alone."""
    try:
        settings = to_site_settings(data)
    except BaseValidationError as error:
        problems = explain(error, SiteSettings)
        readable, as_before = without(error, data, to_site_settings)
        problems += map(as_before, readable.problems() if readable is not None else ())
        raise _refusal(where, problems) from None
    if wrong := settings.problems():
        raise _refusal(where, wrong)
    return settings


def _passcode_problems(settings: Settings) -> Iterator[str]:
    """Read each passcode file once, so that `config check` and each daemon's start find what is wrong with it."""
    holders: dict[str, PasscodeHolder] = {"broker": settings.broker}
    holders |= {f"keepalive.destinations.{name}": each for name, each in settings.keepalive.destinations.items()}
    for path, holder in holders.items():
        try:
            read_passcode(holder)
        except SettingsError as error:
            yield f"{path}.{error.problem}"


def _refusal(where: str, problems: Iterable[str], *, located: bool = False) -> SettingsError:
    """Return the error for all problems; `located`: each begins with its file."""
    found = tuple(problems)
    if len(found) == 1:
        return SettingsError(found[0] if located else f"{where}: {found[0]}")
    return SettingsError(f"{where} has {len(found)} problems", problems=found)


def _own_name() -> str:
    return socket.gethostname().split(".")[0] or "localhost"
