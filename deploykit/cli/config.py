"""`deploykit config`: check and show the settings, and make them of old ones."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from deploykit.cli.configmigrate import migrate
from deploykit.cli.options import config_option, json_option, load, print_json, to_json
from deploykit.cli.visible import visible
from deploykit.config.crosschecks import warnings

if TYPE_CHECKING:
    from deploykit.operations.explain import ExplainedKey


@click.group()
def config() -> None:
    """Check and show the settings; convert those of the original's programs.

    \b
    Example:
      deploykit config check --config /etc/deploykit/deploykit.toml
    """


config.add_command(migrate)


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
        f"broker {_shown(settings.broker.address)}" + (f", commands by {settings.via.url}" if settings.via.url else "")
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


@config.command()
@click.argument("keys", metavar="KEY…", nargs=-1, required=True)
@config_option
@json_option
def explain(keys: tuple[str, ...], config: Path | None, as_json: bool) -> None:
    """Show what each KEY may do on this node, for each site, and why not.

    KEY is a fingerprint (SHA256:…), a key file, a public key line in quotes, or a principal: then every key that may
    sign as it. Where the settings have no sites, the sites that grants name are shown.

    \b
    Example:
      deploykit config explain ops@example.com
      deploykit config explain ~/.ssh/id_ed25519.pub SHA256:rJ3F9CeWlOwY34kabaXCB/LfZZ3/At38xvB4c7ClJ/A --json
    """
    from deploykit.messages import utc_now
    from deploykit.operations.explain import explain_keys

    found = explain_keys(load(config), keys, utc_now())
    if as_json:
        print_json({"keys": [attrs.asdict(key) for key in found]})
        return
    for line in (line for key in found for line in _explained(key)):
        click.echo(visible(line))


def _explained(key: ExplainedKey) -> Iterator[str]:
    """Yield the lines that show what one key may do."""
    yield " ".join(filter(None, (key.fingerprint or "no key", key.kind, key.certificate)))
    for line in key.lines:
        names, comment = ",".join(line.principals), f" ({line.comment})" if line.comment else ""
        role = "certifies" if line.authority else "signs as"
        yield f"  line {line.line}: {role} {names}{comment}" + (f": {line.objection}" if line.objection else "")
    if key.problem:
        yield f"  may do nothing: {key.problem}"
        return
    yield f"  principals of grants: {', '.join(key.principals) or 'none'}"
    for site, rights in itertools.groupby(key.rights, key=lambda right: right.site):
        yield f"  site {site}:" if site else "  any site:"
        for right in rights:
            by = f"as {', '.join(right.principals)} ({', '.join(f'trust.grants[{at}]' for at in right.grants)})"
            text = "; ".join(filter(None, (by if right.allowed else "", right.why)))
            yield f"    {'yes' if right.allowed else 'no ':<3} {right.right:<18} {text}"


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
