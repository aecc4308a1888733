"""Options that several commands share, and how they print."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from deploykit.settings.node import Settings

# JSON itself escapes the first 32 only; these are C1 controls, zero-width and bidirectional marks, line separators, and
# what stands for a byte of a name that is not UTF-8.
_UNSEEN = re.compile("[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]")


F = TypeVar("F", bound=Callable[..., Any])


class Seconds(click.types.FloatParamType):
    """A number of seconds, up to 31 years. Neither `nan` nor `inf`: such a wait would never end."""

    name = "seconds"

    def __init__(self, least: float = 0.0) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; fail where the text is none."""
        seconds = float(super().convert(value, param, ctx))
        if not self._least <= seconds <= 1e9:
            self.fail(f"{value!r} is not a number of seconds from {self._least:g} up.", param, ctx)
        return seconds


class Directory(click.Path):
    """A directory, not empty: the empty text of an unset shell variable would mean the working directory."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        if not os.fspath(value):
            self.fail("the path is empty; write . for the working directory", param, ctx)
        return super().convert(value, param, ctx)


def config_option(function: F) -> F:
    """Add `--config FILE`, handed on as `config: Path | None`."""
    return click.option(
        "-c",
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Settings; default $DEPLOYKIT_CONFIG or /etc/deploykit/deploykit.toml.",
    )(function)


def json_option(function: F) -> F:
    """Add `--json`, handed on as `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(function)


def load(config: Path | None) -> Settings:
    """Return the settings that a command was given with `--config`, or the default file's."""
    from deploykit.config import load_settings

    return load_settings(config)


def to_json(value: object) -> str:
    """Return one JSON document on one line. Characters that a terminal would obey or hide are escaped."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return _UNSEEN.sub(lambda hit: f"\\u{ord(hit[0]):04x}", text)


def print_json(value: object) -> None:
    """Print one JSON document on one line, at once."""
    click.echo(to_json(value))
