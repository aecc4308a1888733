"""Options that several commands share, and how they print."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from deploykit.settings import Settings

# JSON itself escapes the first 32 only; these are C1 controls, zero-width and bidirectional marks, line separators, and
# what stands for a byte of a name that is not UTF-8.
_UNSEEN = re.compile("[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]")

F = TypeVar("F", bound=Callable[..., Any])


class Seconds(click.FloatRange):
    """How long to wait. Never NaN, which no comparison stops, nor longer than clocks reckon."""

    def __init__(self, least: float) -> None:
        super().__init__(least, 1e7)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return found


class Directory(click.Path):
    """A directory. An empty word, as from a shell variable that is not set, would mean the working directory."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        if not os.fspath(value):
            self.fail("it is empty; write . for the working directory", param, ctx)
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
    """Read the settings a command was given."""
    from deploykit.config import load_settings

    return load_settings(config)


def print_json(value: object) -> None:
    """Print one JSON document on one line, at once. What a terminal would obey or hide is escaped."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    click.echo(_UNSEEN.sub(lambda hit: f"\\u{ord(hit[0]):04x}", text))
