"""`deploykit watch`: tail the bus."""

from __future__ import annotations

from pathlib import Path

import click

from deploykit.cli.options import config_option, json_option, load


@click.command()
@click.option("-d", "--destination", "destinations", multiple=True, help="Instead of all topics in the settings.")
@click.option("-n", "--count", type=click.IntRange(min=1), help="End after so many messages.")
@config_option
@json_option
def watch(destinations: tuple[str, ...], count: int | None, config: Path | None, as_json: bool) -> None:
    """Print each message as it passes: its human line, or with --json the message itself.

    \b
    Examples:
      deploykit watch
      deploykit watch --json -d /topic/deploykit.report
    """
    from deploykit.daemons.watch import run

    run(
        load(config),
        destinations=destinations,
        count=count,
        as_json=as_json,
        show=click.echo,
        on_ready=lambda: (
            click.echo("ready: watching", err=not as_json) if not as_json else click.echo('{"ready": true}')
        ),
    )
