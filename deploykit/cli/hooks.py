"""`deploykit hooks`: install, check and remove the hook scripts."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def hooks() -> None:
    """Install, check and remove the hook scripts.

    \b
    Example:
      deploykit hooks install /srv/git/shop.git
    """


@hooks.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(["git"]), default="git", show_default=True)
def install(paths: tuple[Path, ...], kind: str) -> None:
    """Install the hook into each repository at PATHS.

    \b
    Example:
      deploykit hooks install /srv/git/*.git
    """
    from deploykit.installer import install_git

    for path in paths:
        click.echo(f"installed ({kind}): {install_git(path)}")
