"""What the `release` commands share: their arguments, the site they work on, and how they show what was done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from deploykit.cli.options import Directory, F, print_json
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.mirror.submodules import ResolvingSource
    from deploykit.release import DeployResult, Operation, Preview, Release, Runner, StepRecord, TreeSource


def site_argument(function: F) -> F:
    """Add SITE_DIR and `--settings FILE`, handed on as `site_dir` and `settings`."""
    function = click.option(
        "--settings",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="The node's deploykit.toml, or a TOML file with this site's release settings alone.",
    )(function)
    return click.argument("site_dir", type=Directory(path_type=Path, file_okay=False))(function)


def submodule_option(function: F) -> F:
    """Add `--submodule`, handed on as `submodules`."""
    return click.option(
        "--submodule",
        "submodules",
        multiple=True,
        metavar="URL=MIRROR",
        help='With submodules = "mirror": the mirror or clone for an address in .gitmodules; may be repeated.',
    )(function)


@contextlib.contextmanager
def open_source(
    site_dir: Path, settings: Path | None, mirror: Path | None, submodules: Sequence[str], parts: Sequence[str]
) -> Iterator[TreeSource | None]:
    """Open a site's mirror or mirrors, with those of their submodules; None where no mirror is given or known."""
    from deploykit.cli.siteparts import open_parts
    from deploykit.config import load_site
    from deploykit.errors import UsageError

    def opened(path: Path, stack: contextlib.ExitStack) -> ResolvingSource:
        return _with_submodules(path, submodules, stack)

    with open_parts(load_site(settings, site_dir), parts, opened) as several:
        if several is not None and mirror is not None:
            raise UsageError(f"--mirror {mirror}: the site is made of {several.names}", "give --part for each, or none")
        if several is not None or mirror is None:
            yield several
            return
        with contextlib.ExitStack() as stack:
            yield opened(mirror, stack)


def _with_submodules(mirror: Path, submodules: Sequence[str], stack: contextlib.ExitStack) -> ResolvingSource:
    """Open a mirror or clone, with those of its submodules."""
    from deploykit.git.repository import Repository
    from deploykit.mirror.submodules import SubmoduleRules, SubmoduleSource
    from deploykit.names import RepoName

    base = stack.enter_context(Repository(mirror))
    if not submodules:
        return base
    given = [_url_and_path(text) for text in submodules]
    opened = {RepoName(str(path)): stack.enter_context(Repository(path)) for _, path in given}
    rules = SubmoduleRules(
        repositories={url: RepoName(str(path)) for url, path in given}, open=opened.__getitem__, depth=16
    )
    return SubmoduleSource(base, base.origin, rules)


def _url_and_path(text: str) -> tuple[str, Path]:
    from deploykit.errors import UsageError
    from deploykit.git.transport.address import redacted_url

    url, found, path = text.rpartition("=")
    if not found or not url or not path:
        raise UsageError(
            f"--submodule {redacted_url(text)}: expected URL=MIRROR",
            "such as https://git.example.org/theme.git=theme.git",
        )
    return url, Path(path)


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
                "parts": [attrs.asdict(part) for part in result.about.parts] if result.about is not None else [],
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
    for part in found.parts:
        live, new = (
            _named(ref, commit) for ref, commit in ((part.live_ref, part.live_commit), (part.ref, part.commit))
        )
        what = f"{part.added} added, {part.changed} changed, {part.removed} removed"
        click.echo(f"{part.repo}: {live} -> {new} in {part.path}/: {what}")
    click.echo(f"{len(found.added)} added, {len(found.changed)} changed, {len(found.removed)} removed")
    if found.warning:
        click.echo(f"warning: {visible(found.warning, tabs=True)}", err=True)


def show_release(found: Release, done: Sequence[tuple[Operation, Sequence[StepRecord]]]) -> None:
    """Print a release, and what was done with it."""
    click.echo(f"{found.name}\n  {' '.join(filter(None, (found.ref, found.commit)))}")
    for part in found.parts:
        click.echo(f"  {part.repo} {part.ref} {part.commit} in {part.path}/")
    click.echo(f"  {status_of(found)} {visible(found.detail)}".rstrip())
    for operation, steps in done:
        by = f" by {operation.requested_by}" if operation.requested_by else ""
        part_of = f" in rollout {operation.rollout}" if operation.rollout else ""
        what = f"{operation.phase} {operation.started}{by}{part_of}: {operation.outcome} {operation.detail}".rstrip()
        click.echo(f"\n{visible(what)}")
        for step in steps:
            code = f" (exit {step.exit_code})" if step.exit_code is not None else ""
            click.echo(f"  {step.name:<14} {step.outcome}{code} {step.seconds:.3f} s")
            for line in step.output.splitlines():
                click.echo(f"      {visible(line, tabs=True)}")


def _named(ref: str, commit: str) -> str:
    from deploykit.names import RefName, short_ref

    return f"{short_ref(RefName(ref))} ({commit[:12]})" if ref else "nothing"


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
