"""`deploykit release`: deploys on this machine, without any bus."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from deploykit.cli.options import Directory, F, json_option, print_json
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


@click.group()
def release() -> None:
    """Deploy, roll back, list and verify a site's releases.

    \b
    Example:
      deploykit release deploy /srv/www/shop --mirror /var/lib/deploykit/mirrors/shop --ref v1.4
      deploykit release list /srv/www/shop
    """


@release.command()
@site_argument
@click.option("--mirror", required=True, type=click.Path(path_type=Path, exists=True), help="A mirror, or any clone.")
@click.option("--ref", required=True, help="The tag or branch to deploy, e.g. v1.4 or refs/heads/main.")
@click.option("--commit", default="", help="What it must stand for; refused when it stands for another one.")
@click.option("--request", default="", help="An id: a second deploy with it is answered, not repeated.")
@click.option("--dry-run", is_flag=True, help="Show the steps and the files that would change; touch nothing.")
@click.option("--prepare", is_flag=True, help="Do all but the switch; `release activate` does that.")
@click.option("--again", is_flag=True, help="Make a new release although this one is live already.")
@click.option("--allow-moved", is_flag=True, help="Deploy --commit although the ref points elsewhere by now.")
@click.option("--allow-older", is_flag=True, help="Deploy a commit the live release already contains.")
@click.option("--allow-drift", is_flag=True, help="Deploy over files that were edited by hand.")
@json_option
def deploy(
    site_dir: Path,
    settings: Path | None,
    mirror: Path,
    ref: str,
    commit: str,
    request: str,
    dry_run: bool,
    prepare: bool,
    again: bool,
    allow_moved: bool,
    allow_older: bool,
    allow_drift: bool,
    as_json: bool,
) -> None:
    """Make a release and put it live. A directory that does not exist yet is set up with the defaults.

    \b
    Example:
      deploykit release deploy /srv/www/shop --mirror shop.git --ref v1.4 --dry-run
      deploykit release deploy /srv/www/shop --mirror shop.git --ref v1.4
    """
    from deploykit.release import Allowances

    allow = Allowances(moved=allow_moved, older=allow_older, drift=allow_drift)
    with _source(mirror) as source, _runner(site_dir, settings, quiet=as_json or dry_run) as runner:
        if dry_run:
            found = runner.preview(source, ref, commit, allow=allow, again=again or prepare, activate=not prepare)
            _show_preview(found, as_json)
            return
        who = _user()
        if prepare:
            result = runner.prepare(source, ref, commit, request=request, requested_by=who, allow=allow)
        else:
            result = runner.deploy(source, ref, commit, request=request, requested_by=who, allow=allow, again=again)
    _end(result, as_json)


@release.command()
@site_argument
@click.argument("which", default="")
@click.option("--mirror", type=click.Path(path_type=Path, exists=True), help="To write it anew if it is gone.")
@click.option("--allow-drift", is_flag=True, help="Take it as it is, although files in it were edited by hand.")
@json_option
def activate(
    site_dir: Path, settings: Path | None, which: str, mirror: Path | None, allow_drift: bool, as_json: bool
) -> None:
    """Put a prepared release live: the newest, or the one named by number, tag, commit or name.

    \b
    Example:
      deploykit release activate /srv/www/shop
    """
    from deploykit.release import Allowances

    allow = Allowances(drift=allow_drift)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(_source(mirror)) if mirror is not None else None
        runner = stack.enter_context(_runner(site_dir, settings, quiet=as_json))
        result = runner.activate(which, source=source, requested_by=_user(), allow=allow)
    _end(result, as_json)


@release.command()
@site_argument
@click.option("--to", default="", help="A release by number, tag, commit or name; the last good one by default.")
@click.option("--mirror", type=click.Path(path_type=Path, exists=True), help="To write one anew that is gone.")
@click.option("--dry-run", is_flag=True, help="Print what would be done; touch nothing.")
@click.option("--allow-drift", is_flag=True, help="Go to a release as it is, although it was edited by hand.")
@json_option
def rollback(
    site_dir: Path,
    settings: Path | None,
    to: str,
    mirror: Path | None,
    dry_run: bool,
    allow_drift: bool,
    as_json: bool,
) -> None:
    """Go back to the last good release, at once where it is still on disk.

    \b
    Example:
      deploykit release rollback /srv/www/shop
      deploykit release rollback /srv/www/shop --to v1.2 --mirror shop.git
    """
    from deploykit.release import Allowances

    allow = Allowances(drift=allow_drift)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(_source(mirror)) if mirror is not None else None
        runner = stack.enter_context(_runner(site_dir, settings, quiet=as_json or dry_run))
        if dry_run:
            runner.site.require()
            plan = runner.rollback_plan(to, can_rebuild=source is not None, allow=allow)
            if as_json:
                print_json(attrs.asdict(plan))
            else:
                click.echo(f"{plan.kind}: {plan.why}")
            if plan.kind == "impossible":
                raise SystemExit(1)
            return
        result = runner.rollback(to, source=source, requested_by=_user(), allow=allow)
    _end(result, as_json)


@release.command("list")
@site_argument
@click.option("--all", "every", is_flag=True, help="Also those that are no longer on disk.")
@json_option
def list_releases(site_dir: Path, settings: Path | None, every: bool, as_json: bool) -> None:
    """List the releases: number, tag, commit, when, by whom, status.

    \b
    Example:
      deploykit release list /srv/www/shop --json
    """
    with _runner(site_dir, settings, quiet=True) as runner:
        runner.site.require()
        live, linked = runner.site.resolved_name(), runner.site.live_name()
        recorded = {r.name for r in runner.site.recorded().releases if r.present}
        found = [r for r in runner.releases() if every or r.present or r.name in recorded]
    if as_json:
        print_json([attrs.asdict(r) | {"current": r.name == live} for r in found])
        return
    _table(
        ("", "release", "tag", "commit", "when", "by", "status"),
        [
            (
                "*" if r.name == live else "",
                str(r.seq),
                r.tag,
                r.commit[:12],
                r.activated or r.created,
                r.requested_by,
                _status(r),
            )
            for r in found
        ],
    )
    if linked and not live:
        click.echo(
            f"warning: current points at {visible(linked, tabs=True)}, which is not there: nothing is live", err=True
        )


@release.command()
@site_argument
@click.argument("which", default="")
@json_option
def show(site_dir: Path, settings: Path | None, which: str, as_json: bool) -> None:
    """Show one release and what was done with it: each step, its exit code and its output. The live one by default.

    \b
    Example:
      deploykit release show /srv/www/shop v1.4
    """
    from deploykit.errors import ReleaseError

    with _runner(site_dir, settings, quiet=True) as runner:
        site = runner.site
        site.require()
        state = site.state()
        found = state.find(which) if which else state.get(site.live_name())
        if found is None:
            raise ReleaseError(f"there is no release {which or '(none is live)'}", "see `deploykit release list`")
        done = [(o, site.steps(o)) for o in state.operations if o.release == found.name]
    if as_json:
        history = [attrs.asdict(o) | {"steps": [attrs.asdict(s) for s in steps]} for o, steps in done]
        print_json(attrs.asdict(found) | {"current": found.name == site.resolved_name(), "operations": history})
        return
    click.echo(f"{found.name}\n  {found.ref} {found.commit}\n  {_status(found)} {visible(found.detail)}".rstrip())
    for operation, steps in done:
        by = f" by {operation.requested_by}" if operation.requested_by else ""
        click.echo(
            f"\n{operation.phase} {operation.started}{by}: {operation.outcome} {visible(operation.detail)}".rstrip()
        )
        for step in steps:
            code = f" (exit {step.exit_code})" if step.exit_code is not None else ""
            click.echo(f"  {step.name:<14} {step.outcome}{code} {step.seconds:.3f} s")
            for line in step.output.splitlines():
                click.echo(f"      {visible(line, tabs=True)}")


@release.command()
@site_argument
@click.argument("which", default="")
@click.option("--paranoid", is_flag=True, help="Read every file, not only what looks changed.")
@json_option
def verify(site_dir: Path, settings: Path | None, which: str, paranoid: bool, as_json: bool) -> None:
    """Compare a release with what was deployed, and list what was changed by hand. Ends with 1 if anything was.

    \b
    Example:
      deploykit release verify /srv/www/shop --paranoid
    """
    with _runner(site_dir, settings, quiet=True) as runner:
        found = runner.verify(which, paranoid=paranoid or None)
    lines = found.lines()
    if as_json:
        print_json(
            {
                "modified": found.modified,
                "missing": found.missing,
                "added": [*found.added, *(d + "/" for d in found.added_directories)],
            }
        )
    else:
        for line in lines:
            click.echo(visible(line, tabs=True))
        count = "1 difference" if len(lines) == 1 else f"{len(lines)} differences"
        click.echo(count if lines else "as deployed")
    if lines:
        raise SystemExit(1)


@release.command()
@site_argument
@click.argument("which")
@click.option("--remove", is_flag=True, help="Take the pin off again.")
def pin(site_dir: Path, settings: Path | None, which: str, remove: bool) -> None:
    """Keep a release beyond the keep-limit.

    \b
    Example:
      deploykit release pin /srv/www/shop v1.2
    """
    with _runner(site_dir, settings, quiet=True) as runner:
        found = runner.pin(which, pinned=not remove)
    click.echo(f"{found.name} is {'no longer pinned' if remove else 'pinned'}")


# -- shared ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _source(mirror: Path) -> Iterator[TreeSource]:
    from deploykit.git.repository import Repository

    with Repository(mirror) as source:
        yield source


@contextlib.contextmanager
def _runner(site_dir: Path, settings: Path | None, *, quiet: bool) -> Iterator[Runner]:
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


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _end(result: DeployResult, as_json: bool) -> None:
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


def _show_preview(found: Preview, as_json: bool) -> None:
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


def _status(found: Release) -> str:
    marks: list[str] = [found.status]
    marks += ["pinned"] if found.pinned else []
    marks += ["spare"] if found.spare else []
    marks += ["gone"] if not found.present else []
    return ", ".join(marks)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    if not rows:
        click.echo("no releases yet")
        return
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    for row in [head, *rows]:
        click.echo("  ".join(visible(c, tabs=True).ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
