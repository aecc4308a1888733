"""`deploykit web sign-page`: the page on which people sign, for a web server of its own."""

from __future__ import annotations

from pathlib import Path

import click

from deploykit.cli.options import config_option, json_option, load, print_json


@click.command("sign-page", short_help="Write the page of web.sign_origin as static files.")
@click.option("--console", metavar="URL", help="Where signatures go.  [default: web.url of the settings]")
@click.option(
    "--write",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    required=True,
    help="Write the files into this directory.",
)
@config_option
@json_option
def sign_page(*, console: str | None, directory: Path, config: Path | None, as_json: bool) -> None:
    """Write the page of web.sign_origin: static files that show what a mandate says, and have a passkey sign it.

    Serve them at an origin of their own, from a machine that the console's administrators cannot change. Nodes that
    list only that origin in trust.origins take no signature that the console's own page asked for. The web server
    needs no more than these files; contrib/nginx/sign-page.conf has the headers. docs/console-signing.md says more.

    \b
    Examples:
      deploykit web sign-page --console https://deploy.example.org --write /srv/sign
      deploykit web sign-page --write ./sign     # web.url of the settings
    """
    from deploykit.errors import UsageError
    from deploykit.web.signing.alone import write_sign_page

    home = console if console is not None else load(config).web.url
    if not home:
        raise UsageError("which console signatures go to is not known", "give --console URL, or set web.url")
    written = write_sign_page(home, directory)
    if as_json:
        print_json({"console": home.rstrip("/"), "files": [str(path) for path in written]})
        return
    for path in written:
        click.echo(f"written: {path}")
    click.echo(f"signatures go to {home.rstrip('/')}")
    click.echo("next: serve them (contrib/nginx/sign-page.conf), set web.sign_origin, and trust.origins on the nodes")


__all__ = ["sign_page"]
