"""`deploykit web openapi`: the description of the API, for clients and reviewers."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--write",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write it to FILE instead; an equal file is left as it is.",
)
def openapi(*, write: Path | None) -> None:
    """Print the description of the API at /api/v1: OpenAPI 3.1.

    \b
    Example:
      deploykit web openapi --write openapi.json
    """
    from deploykit.daemons.service.extras import needing_extra

    with needing_extra("web"):
        from deploykit.web.api.openapi import openapi_text
    text = openapi_text()
    if write is None:
        click.echo(text, nl=False)
    elif write.exists() and write.read_text(encoding="utf-8", errors="replace") == text:
        click.echo(f"{write} is up to date")
    else:
        write.write_text(text, encoding="utf-8")
        click.echo(f"written to {write}")
