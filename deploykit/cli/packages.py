"""`deploykit packages`: the daemon that has package sources read when something new is announced."""

from __future__ import annotations

from pathlib import Path

import click

from deploykit.cli.options import config_option, load


@click.command()
@config_option
@click.option("--forget", is_flag=True, help="Drop the durable subscription at the broker, and end.")
def packages(config: Path | None, forget: bool) -> None:
    """Run the packages daemon: an announced package has the sources in [packages.sources] read that may have it.

    Only packages count that are installed here, or listed in the settings. Nothing is ever installed. What is held and
    available then is reported on the bus. TERM ends it, HUP reads the settings again. docs/packages.md says more.

    \b
    Examples:
      deploykit packages --config /etc/deploykit/deploykit.toml
      deploykit run agent packages
      deploykit packages --forget
    """
    from deploykit.daemons.packages import daemon

    if forget:
        daemon.forget(load(config))
    else:
        daemon.run(lambda: load(config), on_ready=lambda name: click.echo(f"ready: {name}"))


__all__ = ["packages"]
