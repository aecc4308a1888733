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

    Every daemon with broker.keepalive in its settings does the same while it runs.

    \b
    Examples:
      deploykit keepalive --once /topic/deploykit.source /queue/builds
      deploykit keepalive --every 30
    """
    import attrs

    from deploykit.bus import Bus
    from deploykit.bus import keepalive as bus_keepalive
    from deploykit.cli import print_error
    from deploykit.daemons import lifecycle, logs
    from deploykit.errors import UsageError

    loaded = load(config)
    settings = loaded.broker
    wanted = destinations or settings.keepalive
    if not wanted:
        raise UsageError("no destinations", "name some, or set broker.keepalive")
    pause = every or settings.keepalive_every
    if not once:
        logs.set_up(loaded.log, secrets=[settings.passcode])
    with Bus(attrs.evolve(settings, keepalive=())) as bus:
        bus.wait_connected(min(1.0, settings.connect_timeout))  # a refused login ends it here
        if once:
            problems = bus_keepalive.send_once(bus, wanted, timeout=settings.connect_timeout, ttl=2 * pause)
            for destination in wanted:
                if destination in problems:
                    print_error(f"{destination}: {problems[destination]}")
                else:
                    click.echo(f"sent: {destination}")
            ctx.exit(1 if problems else 0)
        with lifecycle.signals() as stop:
            bus_keepalive.run(bus, wanted, every=pause, stop=stop)
