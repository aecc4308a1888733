"""`deploykit keepalive`: an empty message to listed destinations, so that no firewall closes an idle connection."""

from __future__ import annotations

from pathlib import Path

import click

from deploykit.cli.options import Seconds, config_option, load


@click.command()
@click.argument("destinations", nargs=-1)
@click.option("--once", is_flag=True, help="Send one to each destination and end (for cron).")
@click.option("--every", type=Seconds(1), help="Seconds between two rounds; default from the settings.")
@config_option
@click.pass_context
def keepalive(
    ctx: click.Context, destinations: tuple[str, ...], once: bool, every: float | None, config: Path | None
) -> None:
    """Send an empty line to DESTINATIONS, or to those listed in the settings.

    Those are broker.keepalive, and [keepalive.destinations.NAME], which may have a login each. One whose login is
    refused does not stop the others; --once names it and ends with 1.

    It runs until TERM; HUP reads the settings again. Every daemon sends to broker.keepalive itself, too.

    \b
    Examples:
      deploykit keepalive --once /topic/deploykit.source /queue/builds
      deploykit keepalive --every 30
    """
    from deploykit.cli import print_error
    from deploykit.daemons import keepalive as daemon

    if not once:
        daemon.run(
            lambda: load(config),
            destinations=destinations,
            every=every,
            on_ready=lambda name: click.echo(f"ready: {name}"),
        )
        return
    problems = daemon.once(load(config), destinations=destinations, every=every)
    for destination, problem in problems.items():
        if problem:
            print_error(f"{destination}: {problem}")
        else:
            click.echo(f"sent: {destination}")
    ctx.exit(1 if any(problems.values()) else 0)
