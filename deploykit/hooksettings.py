"""What a hook is told: a small TOML file, or nothing at all. Light: it is on the path of somebody's push.

Where it looks, the first that exists: `deploykit.toml` beside the repository's hooks, `/etc/deploykit/hooks.toml`.
A hook works with neither: it queues in the default spool, to the default topics.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from deploykit.errors import SettingsError
from deploykit.names import RepoName, parse_repo_name
from deploykit.settings import TopicMap, with_preset

SYSTEM_FILE: Final = Path("/etc/deploykit/hooks.toml")
SYSTEM_SPOOL: Final = Path("/var/spool/deploykit")


@attrs.frozen(kw_only=True, slots=True)
class HookSettings:
    """How a hook behaves.

    Args:
        repo: the repository's name in messages; made from its path when absent.
        spool: where messages wait for the relay.
        topics: where they go.
        strict: end with an error when nothing could be queued. The push itself stands all the same.
        file: where this was read; None for the defaults.
    """

    repo: RepoName | None = None
    spool: Path = SYSTEM_SPOOL
    topics: TopicMap = attrs.field(factory=TopicMap)
    strict: bool = False
    file: Path | None = None


def load_hook_settings(repository: Path, environ: Mapping[str, str]) -> HookSettings:
    """Read the settings for the hooks of one repository.

    Raises:
        SettingsError: the file cannot be read or holds mistakes; all of them are in `problems`.
    """
    for file in (repository / "deploykit.toml", SYSTEM_FILE):
        try:
            raw = file.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SettingsError(f"cannot read {file}: {error.strerror}") from error
        return _parse(raw, file, environ)
    return HookSettings(spool=default_spool(environ))


def default_spool(environ: Mapping[str, str]) -> Path:
    """The system's spool where we may write to it, else one of the user's own."""
    if os.access(SYSTEM_SPOOL, os.W_OK | os.X_OK):
        return SYSTEM_SPOOL
    state = environ.get("XDG_STATE_HOME") or os.path.join(environ.get("HOME", "/"), ".local/state")  # noqa: PTH118
    return Path(state) / "deploykit" / "spool"


def _parse(raw: bytes, file: Path, environ: Mapping[str, str]) -> HookSettings:
    try:
        data = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is not TOML: {error}") from error
    problems: list[str] = []
    found: dict[str, Any] = {"file": file, "spool": default_spool(environ)}
    for key, value in data.items():
        try:
            found[key] = _value(key, value)
        except ValueError as error:
            problems.append(f"{file}: {key}: {error}")
    if problems:
        raise SettingsError(problems[0] if len(problems) == 1 else f"{file} has mistakes", problems=tuple(problems))
    return HookSettings(**found)


def _value(key: str, value: object) -> object:
    match key, value:
        case "repo", str():
            return parse_repo_name(value)
        case "spool", str() if value.startswith("/"):
            return Path(value)
        case "strict", bool():
            return value
        case "topics", dict():
            known = {field.name for field in attrs.fields(TopicMap)} - {"notices"} | {"preset"}
            for name, topic in value.items():
                if name not in known or not isinstance(topic, str):
                    raise ValueError(f"{name}: expected one of {', '.join(sorted(known))}, each a string")
            filled: dict[str, Any] = with_preset(value)
            return TopicMap(**filled)
    expected = {"repo": "a name", "spool": "an absolute path", "strict": "true or false", "topics": "a table"}
    if key in expected:
        raise ValueError(f"expected {expected[key]}")
    raise ValueError(f"unknown setting (known: {', '.join(expected)})")
