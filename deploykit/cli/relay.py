"""`deploykit relay`: send the messages in the outbox."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from deploykit.cli.options import Seconds, config_option, json_option, load, print_json

if TYPE_CHECKING:
    from deploykit.settings.node import Settings


@click.command()
@config_option
@click.option(
    "--spool",
    type=click.Path(path_type=Path, file_okay=False),
    help="This spool instead of the settings' one; it must exist.",
)
@click.option(
    "--once", is_flag=True, help="Send what waits, then end; with 1 if messages are left or became dead letters."
)
@click.option(
    "--deadline",
    default=60.0,
    show_default=True,
    type=Seconds(0),
    help="With --once: seconds after which it ends anyway.",
)
@click.option("--background", is_flag=True, help="Give way to all other work, and keep no directory busy.")
@json_option
def relay(
    config: Path | None, spool: Path | None, once: bool, deadline: float, background: bool, as_json: bool
) -> None:
    """Send the messages in the outbox, those that wait and those that come, until TERM. HUP reads the settings again.

    One relay for each spool and user: the spool owner's sends everybody's messages, another user's only their own.

    \b
    Example:
      deploykit relay --config /etc/deploykit/deploykit.toml
      deploykit relay --once
    """
    from deploykit.daemons import relay as daemon

    if background:
        daemon.step_back()

    def settings() -> Settings:
        loaded = load(config)
        if spool is None:
            return loaded
        return attrs.evolve(loaded, outbox=attrs.evolve(loaded.outbox, path=spool, create=False))

    if not once:
        daemon.run(settings, on_ready=lambda name: click.echo(f"ready: {name}"))
        return
    report = daemon.once(settings(), deadline)
    if as_json:
        print_json(
            {
                "sent": report.sent,
                "complete": report.complete,
                "trouble": report.problem,
                "dead_letters": [
                    {"id": dead.id, "destination": dead.destination, "reason": dead.reason}
                    for dead in report.dead_letters
                ],
            }
        )
    else:
        left = "" if report.complete else ", some still wait"
        click.echo(f"{report.sent} sent{left}" + (f": {report.problem}" if report.problem else ""))
        for dead in report.dead_letters:
            click.echo(f"dead letter {dead.id} for {dead.destination}: {dead.reason}", err=True)
    if report.dead_letters or not report.complete:
        raise click.exceptions.Exit(1)
