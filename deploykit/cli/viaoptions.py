"""The options by which a command goes through a web console, and what it takes from them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from deploykit.cli.options import load

if TYPE_CHECKING:
    from deploykit.settings.node import Settings
    from deploykit.via.client import ConsoleClient

F = TypeVar("F", bound=Callable[..., Any])

#: Names the file of the token, where `--via-token` does not.
TOKEN_FILE: Final = "DEPLOYKIT_VIA_TOKEN_FILE"  # noqa: S105 - the name of a variable


def via_options(function: F) -> F:
    """Add `--via` and `--via-token`, handed on as `via: str | None` and `via_token: Path | None`."""
    function = click.option(
        "--via-token",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help=f"With --via: the API token is this file's only line.  [default: ${TOKEN_FILE}]",
    )(function)
    return click.option(
        "--via",
        metavar="URL",
        help="Go through this web console instead of the broker; `-`: not, whatever the settings say.",
    )(function)


def via_settings(config: Path | None, given: Mapping[str, Any]) -> Settings:
    """Return the settings; where a console is named and there are none, those of a machine that has nothing.

    Raises:
        SettingsError: they are wrong; or there are none, and no console is named.
    """
    from deploykit.config.files import main_path
    from deploykit.names import NodeName
    from deploykit.settings.node import Settings as AnySettings

    named = given.get("via") not in (None, "-")
    if named and config is None and not main_path(None, os.environ).exists():
        return AnySettings(node=NodeName("nobody"))
    return load(config)


def console_for(settings: Settings, given: Mapping[str, Any]) -> ConsoleClient | None:
    """Return the console that a command goes through; None where it goes by the broker.

    Raises:
        UsageError: the URL cannot be used, or a token is given without it.
        SettingsError: the token or the certificates cannot be used.
    """
    import attrs

    from deploykit.errors import UsageError
    from deploykit.settings.via import NOWHERE, ViaSettings
    from deploykit.via.client import ConsoleClient

    url, token = given.get("via"), given.get("via_token")
    mine = settings.via
    if url == NOWHERE or (url is None and not mine.url):
        if token is not None:
            raise UsageError("--via-token goes with --via", "give --via URL")
        return None
    own = url is None or url.rstrip("/") == mine.url.rstrip("/")
    via = mine if own else ViaSettings(url=str(url))  # the settings' token is for the settings' console alone
    variable = os.environ.get(TOKEN_FILE)
    if token is None and not variable:
        return ConsoleClient(via)
    via = attrs.evolve(via, token_file=token or Path(str(variable)))
    return ConsoleClient(via, token_from="--via-token" if token is not None else TOKEN_FILE)


def refuse_with_via(ctx: click.Context, names: Mapping[str, str]) -> None:
    """Accept a command line without options that a console does not know.

    Args:
        names: arguments, and why or what instead.

    Raises:
        UsageError: one of them is given.
    """
    from deploykit.errors import UsageError

    default = click.core.ParameterSource.DEFAULT
    for name, remedy in names.items():
        if ctx.get_parameter_source(name) not in (None, default):
            option = next((param.opts[-1] for param in ctx.command.params if param.name == name), f"--{name}")
            raise UsageError(f"{option} cannot be used through a console (--via)", remedy)


def is_given(ctx: click.Context, name: str) -> bool:
    """Return whether a person gave an option."""
    return ctx.get_parameter_source(name) not in (None, click.core.ParameterSource.DEFAULT)


__all__ = ["TOKEN_FILE", "console_for", "is_given", "refuse_with_via", "via_options", "via_settings"]
