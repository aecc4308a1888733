"""What the `release` commands share: their arguments, the site they work on, and how they show what was done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from deploykit.cli.options import Directory, F, print_json
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.release import DeployResult, Preview, Release, Runner, TreeSource


def site_argument(function: F) -> F:
    """Add SITE_DIR and `--settings FILE`, handed on as `site_dir` and `settings`."""
    function = click.option(
        "--settings",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="The node's deploykit.toml, or a TOML file with this site's release settings alone.",
    )(function)
    return click.argument("site_dir", type=Directory(path_type=Path, file_okay=False))(function)


@contextlib.contextmanager
def open_source(mirror: Path) -> Iterator[TreeSource]:
    from deploykit.git.repository import Repository

    with Repository(mirror) as source:
        yield source


@contextlib.contextmanager
def open_runner(site_dir: Path, settings: Path | None, *, quiet: bool) -> Iterator[Runner]:
    import socket

    from deploykit.config import load_site_settings
    from deploykit.release import Runner, Site

    site = Site(site_dir, load_site_settings(settings, site_dir))
    node = socket.gethostname().split(".")[0]
    if quiet:
        yield Runner(site, node=node)
        return
    from deploykit.cli.release_output import DeployDisplay

    with DeployDisplay() as display:
        yield Runner(site, node=node, on_output=display.output, on_step=display.step, on_progress=display.progress)


def user_here() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def end_with(result: DeployResult, as_json: bool) -> None:
    if as_json:
        steps = [attrs.asdict(s) for s in result.steps]
        print_json(
            {
                "outcome": result.outcome,
                "release": result.release,
                "detail": result.detail,
                "again": result.again,
                "steps": steps,
            }
        )
    else:
        detail = f": {visible(result.detail, tabs=True)}" if result.detail else ""
        click.echo(f"{result.outcome} {result.release}{detail}".replace(" :", ":"), err=result.outcome != "success")
    if result.outcome != "success":
        raise SystemExit(result.exit_code)


def show_preview(found: Preview, as_json: bool) -> None:
    if as_json:
        print_json(attrs.asdict(found))
        return
    if found.nothing_to_do:
        click.echo(f"{found.tag} is live already: nothing to do")
        return
    how = "written afresh" if found.build == "fresh" else f"made from {found.build}"
    does = (
        f"put {found.release} live, which is prepared"
        if found.build == found.release
        else f"make {found.release}, {how}"
    )
    click.echo(f"would {does}; live now: {found.previous or 'nothing'}")
    click.echo(f"steps: {', '.join(found.steps)}")
    for sign, paths in (("+", found.added), ("~", found.changed), ("-", found.removed)):
        for path in paths:
            click.echo(f"  {sign} {visible(path, tabs=True)}")
    click.echo(f"{len(found.added)} added, {len(found.changed)} changed, {len(found.removed)} removed")
    if found.warning:
        click.echo(f"warning: {visible(found.warning, tabs=True)}", err=True)


def status_of(found: Release) -> str:
    marks: list[str] = [found.status]
    marks += ["pinned"] if found.pinned else []
    marks += ["spare"] if found.spare else []
    marks += ["gone"] if not found.present else []
    return ", ".join(marks)


def print_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    if not rows:
        click.echo("no releases yet")
        return
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    for row in [head, *rows]:
        click.echo("  ".join(visible(c, tabs=True).ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
