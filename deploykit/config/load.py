"""One TOML file -> `Settings`. All problems are reported at once, each with its path and what was expected.

Rules:
* What cannot be converted is explained, and what is left is checked too, so that one run finds everything.
* Each family checks itself (`problems()`); `crosschecks` finds what needs more than one.
* A file that holds a passcode is read only where its mode is 0600 or 0640.
"""

from __future__ import annotations

import os
import socket
import stat
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from cattrs.errors import BaseValidationError

from deploykit.bus.passcode import read_passcode
from deploykit.config.convert import to_settings, to_site_settings
from deploykit.config.crosschecks import problems as cross_problems
from deploykit.config.explain import explain, without
from deploykit.config.passcodes import mode_problems, resolve_environment
from deploykit.errors import SettingsError
from deploykit.messages.topics import with_preset
from deploykit.settings.bus import BusSettings
from deploykit.settings.node import Settings
from deploykit.settings.site import SiteSettings
from deploykit.system.ownership import OthersCanChange, require_owned

DEFAULT_PATH: Final = Path("/etc/deploykit/deploykit.toml")


def load_settings(path: Path | None = None, *, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings file; without a path, `$DEPLOYKIT_CONFIG` or `/etc/deploykit/deploykit.toml`.

    Args:
        path: a `deploykit.toml`.
        environ: where `$DEPLOYKIT_CONFIG` and `env:NAME` are looked up; the process's own when None.

    Raises:
        SettingsError: the file cannot be read, is not TOML, or is wrong (`problems` has all that is).
    """
    environ = os.environ if environ is None else environ
    path = path or Path(environ.get("DEPLOYKIT_CONFIG") or DEFAULT_PATH)
    raw, mode = _read(path, "give another file with --config, or create it")
    return parse_settings(raw, where=str(path), mode=mode, environ=environ)


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
    problems = mode_problems(data, mode)
    problems += resolve_environment(data, os.environ if environ is None else environ)
    data.setdefault("node", _own_name())
    if isinstance(data.get("topics"), dict):
        try:
            data["topics"] = with_preset(data["topics"])
        except ValueError as error:
            problems.append(f"topics.{error}")
            del data["topics"]
    named = data.get("repositories")
    repositories = tuple(named) if isinstance(named, dict) else ()
    settings: Settings | None
    readable: Settings | None
    as_before: Callable[[str], str] = str
    try:
        readable = settings = to_settings(data)
    except BaseValidationError as error:
        problems += explain(error, Settings)
        settings, (readable, as_before) = None, without(error, data, to_settings)
    if readable is not None:
        more = [*readable.problems(), *_passcode_problems(readable.broker)]
        more += cross_problems(readable, repositories=repositories)
        problems += map(as_before, more)
    if problems or settings is None:
        raise _refusal(where, problems)
    return settings


def load_site_settings(path: Path | None, site: Path) -> SiteSettings:
    """Read the settings of the site at directory `site`: from the node's settings file, or from a file of its own.

    Args:
        path: a `deploykit.toml` that has the site, or a TOML file with a site's release settings alone. Without one,
            the node's own file where there is one that has the site, and the defaults where not.
        site: the site's directory.

    Raises:
        SettingsError: the file cannot be read, is wrong, or does not know the site.
    """
    if path is not None:
        data = _parse_toml(_read(path, "give another file")[0], str(path))
        if "sites" not in data and "node" not in data:
            return _parse_site_settings(data, str(path))
    elif not Path(os.environ.get("DEPLOYKIT_CONFIG") or DEFAULT_PATH).exists():
        return SiteSettings()
    for found in load_settings(path).sites.values():
        if found.path.resolve() == site.resolve():
            return found.release
    if path is None:
        return SiteSettings()
    raise SettingsError(f"{path} has no site at {site}", "correct the path, or give a file of release settings alone")


def _read(path: Path, remedy: str) -> tuple[bytes, int]:
    """Return the content of a settings file and its mode. Root reads no file that others can change: it has its power.

    Raises:
        SettingsError: it cannot be read, or others can change it and we are root.
    """
    try:
        with path.open("rb") as file:
            if os.geteuid() == 0:
                require_owned(str(path), file.fileno(), frozenset({0}))
            return file.read(), stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except OthersCanChange as found:
        raise SettingsError(f"settings {path} are not read as root: {found.why}", found.remedy) from None
    except OSError as error:
        raise SettingsError(f"cannot read settings {path}: {error.strerror}", remedy) from error


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


def _passcode_problems(broker: BusSettings) -> tuple[str, ...]:
    """Read the passcode file once, so that `config check` and each daemon's start find what is wrong with it."""
    try:
        read_passcode(broker)
    except SettingsError as error:
        return (f"broker.{error.problem}",)
    return ()


def _refusal(where: str, problems: Iterable[str]) -> SettingsError:
    found = tuple(problems)
    if len(found) == 1:
        return SettingsError(f"{where}: {found[0]}")
    return SettingsError(f"{where} has {len(found)} problems", problems=found)


def _own_name() -> str:
    return socket.gethostname().split(".")[0] or "localhost"
