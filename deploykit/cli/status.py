"""`deploykit status`: what this node holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from deploykit.cli.options import config_option, json_option, load, print_json


@click.command()
@config_option
@json_option
@click.pass_context
def status(ctx: click.Context, config: Path | None, as_json: bool) -> None:
    """Tell what this node holds: mirrors, what is live on each site, messages waiting. Asks no broker and no origin.
    Ends with 1 when some of it cannot be read, or when another agent answers under this node's name.

    \b
    Example:
      deploykit status --config /etc/deploykit/deploykit.toml
    """
    from deploykit.messages import one_line
    from deploykit.operations.status import describe

    found = describe(load(config))
    entries = [*found["mirrors"], *found["sites"], *found["outbox"]]
    code = 1 if found["twins"] or any("problem" in entry for entry in entries) else 0
    if as_json:
        print_json(found)
        ctx.exit(code)
    click.echo(f"node {found['node']}")
    for mirror in found["mirrors"]:
        _line("mirror", mirror, f"{mirror['repo']}  {mirror['refs']} refs")
    for site in found["sites"]:
        _line("site", site, f"{site['site']}  {site['current'] or 'nothing is live'}")
    for outbox in found["outbox"]:
        _line("outbox", outbox, f"{outbox['waiting']} waiting")
    for twin in found["twins"]:
        click.echo(f"  twin    {twin['instance']} on {twin['host']} uses this name, heard {twin['seconds_ago']} s ago")
    for warning in found["warnings"]:
        click.echo(f"  warning {one_line(warning)}")
    ctx.exit(code)


def _line(kind: str, entry: Mapping[str, object], text: str) -> None:
    click.echo(f"  {kind:<7} {entry.get('problem', text)}  {entry['path']}")
