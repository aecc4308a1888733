"""`deploykit run`: several daemons in one process, on one connection."""

from __future__ import annotations

from pathlib import Path

import click

from deploykit.cli.options import config_option, load


@click.command()
@click.argument("services", nargs=-1, required=True)
@config_option
def run(services: tuple[str, ...], config: Path | None) -> None:
    """Run SERVICES in one process, on one connection to the broker: agent, access, packages, jenkins, webhook, web,
    notify, relay, keepalive.

    TERM ends all. HUP reads the settings again and replaces all; wrong settings change nothing. One that cannot start
    or go on ends the process, with its name and exit code 1.

    \b
    Example:
      deploykit run agent jenkins --config /etc/deploykit/deploykit.toml
    """
    from deploykit.daemons.service import lifecycle
    from deploykit.daemons.service.metrics import Metrics
    from deploykit.daemons.service.pages import Pages
    from deploykit.daemons.service.registry import check_names, make_group

    names, metrics = check_names(services), Metrics()
    lifecycle.serve(
        lambda: load(config),
        lambda settings: make_group(names, settings, metrics),
        pages=Pages("run", metrics),
        on_ready=lambda name: click.echo(f"ready: {name}"),
    )
