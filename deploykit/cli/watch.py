"""`deploykit watch`: print each message on the bus as it passes."""

from __future__ import annotations

from pathlib import Path

import click

from deploykit.cli.options import config_option, json_option, load


@click.command()
@click.option("-d", "--destination", "destinations", multiple=True, help="Instead of all topics in the settings.")
@click.option("-n", "--count", type=click.IntRange(min=1), help="End after so many messages.")
@click.option("--durable", metavar="NAME", help="The broker keeps messages for NAME while nobody watches.")
@click.option("--forget", is_flag=True, help="With --durable: remove NAME at the broker, and end.")
@config_option
@json_option
def watch(
    destinations: tuple[str, ...],
    count: int | None,
    durable: str | None,
    forget: bool,
    config: Path | None,
    as_json: bool,
) -> None:
    """Print one line for each message as it passes, or with --json the message itself. HUP reads the settings again.

    \b
    Examples:
      deploykit watch
      deploykit watch --json -d /topic/deploykit.report
    """
    from deploykit.cli import print_error
    from deploykit.daemons import watch as daemon
    from deploykit.errors import UsageError

    if forget:
        if durable is None:
            raise UsageError("--forget goes with --durable NAME")
        daemon.forget(load(config), destinations=destinations, durable=durable)
        return
    daemon.run(
        lambda: load(config),
        destinations=destinations,
        count=count,
        durable=durable,
        as_json=as_json,
        show=click.echo,
        on_ready=lambda: click.echo('{"ready": true}' if as_json else "ready: watching"),
        on_notice=print_error,
    )
