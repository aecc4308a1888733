"""`deploykit status`: what this node holds."""

from __future__ import annotations

from pathlib import Path

import click

from deploykit.cli.options import config_option, json_option, load, print_json


@click.command()
@config_option
@json_option
def status(config: Path | None, as_json: bool) -> None:
    """Tell what this node holds: mirrors, what is live on each site, messages waiting. Asks no broker and no origin.

    \b
    Example:
      deploykit status --config /etc/deploykit/deploykit.toml
    """
    from deploykit.daemons.inspecting import describe

    found = describe(load(config))
    if as_json:
        print_json(found)
        return
    click.echo(f"node {found['node']}")
    for section in ("mirrors", "sites", "outbox"):
        for line in found[section]:
            click.echo(f"  {section.removesuffix('s'):<7} " + "  ".join(f"{v}" for v in line.values()))
