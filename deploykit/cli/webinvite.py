"""`deploykit web invite`: let somebody make their first passkey for the console."""

from __future__ import annotations

import json
from pathlib import Path

import click

from deploykit.cli.options import config_option, load


@click.command()
@click.argument("name")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.pass_context
def invite(ctx: click.Context, *, name: str, config: Path | None, as_json: bool) -> None:
    """Print a link by which NAME makes a passkey and logs in. It is good once, for 24 hours.

    Whoever has the link becomes NAME at the console: send it to them alone. What they may do then is what
    [[web.access]] gives that name. Run it where the console runs, as its user, or with the same database.

    \b
    Examples:
      deploykit web invite alice
      deploykit web invite alice --json | jq -r .url
    """
    from deploykit.daemons.service.extras import needing_extra

    settings = load(config or ctx.obj)
    with needing_extra("web"):
        from deploykit.web.login.inviting import make_invitation
    made = make_invitation(settings.web, settings.state, name)
    if as_json:
        click.echo(json.dumps({"name": made.name, "url": made.url, "seconds": made.seconds}))
        return
    click.echo(made.url)
    click.echo(f"good once, for {made.seconds / 3600:g} hours: send it to {made.name} alone", err=True)
    if not made.may:
        click.echo(f"note: no [[web.access]] names {made.name}: they will be logged in and see nothing", err=True)
