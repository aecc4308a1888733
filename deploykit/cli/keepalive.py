"""`deploykit keepalive`: an empty message to listed destinations, so that nothing on the way falls asleep."""

from __future__ import annotations

from pathlib import Path

import click

from deploykit.cli.options import Seconds, config_option, load


@click.command()
@click.argument("destinations", nargs=-1)
@click.option("--once", is_flag=True, help="Send one to each and end (for cron), instead of going on.")
@click.option("--every", type=Seconds(1), help="Seconds between two rounds; default from the settings.")
@config_option
@click.pass_context
def keepalive(
    ctx: click.Context, destinations: tuple[str, ...], once: bool, every: float | None, config: Path | None
) -> None:
    """Send an empty line to DESTINATIONS, or to those listed as broker.keepalive in the settings.

    It goes on until TERM; HUP reads the settings again.

    Every daemon with broker.keepalive in its settings does the same while it runs.

    \b
    Examples:
      deploykit keepalive --once /topic/deploykit.source /queue/builds
      deploykit keepalive --every 30
    """
    from deploykit.cli import print_error
    from deploykit.daemons import keepalive as daemon

    if not once:
        daemon.run(lambda: load(config), destinations=destinations, every=every)
        return
    told = daemon.once(load(config), destinations=destinations, every=every)
    for destination, problem in told.items():
        if problem:
            print_error(f"{destination}: {problem}")
        else:
            click.echo(f"sent: {destination}")
    ctx.exit(1 if any(told.values()) else 0)
