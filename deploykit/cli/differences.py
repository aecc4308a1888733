"""How a live directory that is adopted differs from a commit, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.trees.livefiles import LiveFiles

_SHOWN: Final = 20


def show_paths(sign: str, paths: Sequence[str], shown: int | None = _SHOWN) -> None:
    """Print paths, one a line; of many the first `shown`, and how many more there are. None: all."""
    for path in paths[:shown]:
        click.echo(f"  {sign} {visible(path, tabs=True)}")
    if shown is not None and len(paths) > shown:
        click.echo(f"  {sign} and {len(paths) - shown} more")


def show_differences(files: LiveFiles, beside: str, shown: int | None = _SHOWN) -> None:
    """Print what a directory has that a commit does not, and the other way round."""
    for sign, paths in (("+", files.added), ("~", files.modified), ("-", files.missing)):
        show_paths(sign, paths, shown)
    counts = f"{len(files.added)} added, {len(files.modified)} changed, {len(files.missing)} missing"
    click.echo(f"beside {visible(beside, tabs=True)}: {counts}")
