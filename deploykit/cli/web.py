"""`deploykit web`: the console, a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from deploykit.cli.options import config_option, load
from deploykit.cli.webforget import forget
from deploykit.cli.webinvite import invite
from deploykit.cli.webopenapi import openapi
from deploykit.cli.websignpage import sign_page

if TYPE_CHECKING:
    from deploykit.settings.node import Settings


@click.group(invoke_without_command=True)
@config_option
@click.option(
    "--listen",
    metavar="ADDRESS",
    help="HOST:PORT, [HOST]:PORT or unix:/PATH, instead of web.listen in the settings; port 0 is any free one.",
)
@click.pass_context
def web(ctx: click.Context, config: Path | None, listen: str | None) -> None:
    """Show what is where, live: sites, nodes, deploys, refs, history. Pages for people, an API for programs.

    It hears the bus, keeps what it hears in a database, and prints its address once it serves. TERM ends it, HUP reads
    the settings again and keeps the socket. Without a login it listens on this machine alone. docs/console.md says
    more.

    \b
    Examples:
      deploykit web
      deploykit web --config /etc/deploykit/deploykit.toml --listen 127.0.0.1:8470
    """
    ctx.obj = config
    if ctx.invoked_subcommand is not None:
        return
    from deploykit.daemons.service.extras import needing_extra

    with needing_extra("web"):
        from deploykit.web import service

    service.run(lambda: _settings(config, listen), on_ready=lambda name: click.echo(f"ready: {name}"))


web.add_command(openapi)
web.add_command(invite)
web.add_command(forget)
web.add_command(sign_page)


def _settings(config: Path | None, listen: str | None) -> Settings:
    """Return the settings, with the address from the command line.

    Raises:
        UsageError: it is none, or others could reach a console that has no login.
    """
    loaded = load(config)
    if listen is None:
        return loaded
    from deploykit.errors import UsageError

    settings = attrs.evolve(loaded, web=attrs.evolve(loaded.web, listen=listen))
    problems = tuple(f"--{each}" for each in settings.web.problems() if each.startswith("listen"))
    if problems:
        raise UsageError(problems[0], problems=problems)
    return settings
