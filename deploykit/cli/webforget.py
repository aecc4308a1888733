"""`deploykit web forget`: take away what lets somebody in who has left."""

from __future__ import annotations

import json
from pathlib import Path

import click

from deploykit.cli.options import config_option, load
from deploykit.errors import UsageError


@click.command()
@click.argument("name")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.pass_context
def forget(ctx: click.Context, *, name: str, config: Path | None, as_json: bool) -> None:
    """Remove what lets NAME in at the console: passkeys for the login, sessions, API tokens, invitations.

    It counts at once, at every console on the database. Take NAME out of the password file, the provider and
    [[web.access]] first: whoever can still log in there comes back. Keys that sign are revoked on the nodes:
    deploykit keys untrust, keys revoke. Run it where the console runs, as its user, or with the same database.

    \b
    Examples:
      deploykit web forget alice
    """
    from deploykit.daemons.service.extras import needing_extra

    settings = load(config or ctx.obj)
    if not name:
        raise UsageError("no name", "give the name as people log in with it")
    with needing_extra("web"):
        from deploykit.web.login.forgetting import forget_login
    gone = forget_login(settings.web, settings.state, name)
    counts = {
        "passkeys": gone.passkeys, "sessions": gone.sessions, "tokens": gone.tokens, "invitations": gone.invitations,
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps({"name": name, **counts}))
        return
    click.echo(f"removed of {name}: " + ", ".join(f"{number} {what}" for what, number in counts.items()))
