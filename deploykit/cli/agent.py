"""`deploykit agent`: the node's daemon."""

from __future__ import annotations

from pathlib import Path

import click

from deploykit.cli.options import config_option


@click.command()
@config_option
@click.option("--forget", is_flag=True, help="Drop this node's durable subscriptions at the broker, and end.")
def agent(config: Path | None, forget: bool) -> None:
    """Run the node's daemon: update mirrors, make releases, report. TERM ends it, HUP reads the settings again.

    \b
    Example:
      deploykit agent --config /etc/deploykit/deploykit.toml
    """
    from deploykit.config import load_settings
    from deploykit.daemons.agent import agent as daemon

    if forget:
        daemon.forget(load_settings(config))
        return
    daemon.run(lambda: load_settings(config), on_ready=lambda name: click.echo(f"ready: {name}"))
