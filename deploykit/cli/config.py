"""`deploykit config`: check and show the settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import attrs
import click

from deploykit.cli.options import config_option, json_option, load, print_json, to_json
from deploykit.cli.visible import visible
from deploykit.config.crosschecks import warnings


@click.group()
def config() -> None:
    """Check and show the settings.

    \b
    Example:
      deploykit config check --config /etc/deploykit/deploykit.toml
    """


@config.command()
@config_option
def check(config: Path | None) -> None:
    """Read the settings, check every file they name, and print every problem. Ends with 2 when there is one.

    The files in conf.d beside the settings file belong to it. It prints which files were read.

    Run it as the user of the daemons: what that user may read and write is checked too. Warns, and ends with 0, where
    the settings are right but no deploy could be accepted, or more than is meant.

    \b
    Example:
      deploykit config check -c deploykit.toml
    """
    from deploykit.cli import print_error
    from deploykit.config import locator, settings_files
    from deploykit.daemons.agent.trustcheck import trust_problems
    from deploykit.errors import SettingsError
    from deploykit.messages import utc_now
    from deploykit.operations.filecheck import file_problems

    settings = load(config)
    located = locator(config)
    problems = tuple(map(located, file_problems(settings)))
    if problems:
        head = problems[0] if len(problems) == 1 else f"what the settings name has {len(problems)} problems"
        raise SettingsError(head, problems=problems)
    for problem in trust_problems(settings, utc_now()):
        print_error(f"warning: {problem}")
    for warning in map(located, warnings(settings)):
        print_error(f"warning: {warning}")
    click.echo(
        f"ok: node {settings.node}, repositories: {len(settings.repositories)}, sites: {len(settings.sites)}, "
        f"broker {_shown(settings.broker.address)}"
    )
    for file in settings_files(config):
        click.echo(f"read: {file}")


@config.command()
@config_option
@json_option
def show(config: Path | None, as_json: bool) -> None:
    """Show the settings in force, defaults included, secrets left out.

    \b
    Example:
      deploykit config show -c deploykit.toml --json
    """
    from deploykit.config import settings_files

    settings = load(config)
    tree = attrs.asdict(
        settings, filter=lambda attribute, _: attribute.repr is not False, value_serializer=lambda *it: _shown(it[2])
    )
    files = [str(file) for file in settings_files(config)]
    if as_json:
        print_json({"files": files, **tree})
        return
    for file in files:
        click.echo(f"# read: {file}")
    for path, value in _leaves(tree):
        click.echo(f"{path} = {_value_text(value)}")


def _shown(value: object) -> object:
    """Return a value without the credentials that any address may hold."""
    if isinstance(value, Mapping):
        return dict(value)  # a read-only mapping is none for attrs, nor for JSON
    if not isinstance(value, str) or "://" not in value:
        return value
    shown = re.sub(r"(://)[^\s,()]*@", r"\1***@", value)
    # An @ that is left may follow a passcode that is not encoded as it should be: hide everything before it.
    return re.sub(r"://.*@", "://***@", value, flags=re.DOTALL) if re.search(r"(?<!\*{3})@", shown) else shown


def _leaves(value: object, path: str = "") -> list[tuple[str, object]]:
    """Return each value with its path, written as the problems of `config check` write it: `trust.grants[0].sites`."""
    if isinstance(value, dict) and value:
        return [leaf for key, item in value.items() for leaf in _leaves(item, f"{path}.{key}".strip("."))]
    if isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        return [leaf for at, item in enumerate(value) for leaf in _leaves(item, f"{path}[{at}]")]
    return [(path, value)]


def _value_text(value: object) -> str:
    """Return a value for people.

    >>> [_value_text(value) for value in (None, True, ("a", "b"), "", "x y", 10.0)]
    ['(not set)', 'true', '["a", "b"]', '""', 'x y', '10']
    """
    if value is None:
        return "(not set)"
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, bool | list | tuple | dict) or value == "":
        return to_json(value)
    return visible(value)
