"""`deploykit release`: deploys on this machine, without any bus."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path

import attrs
import click

from deploykit.cli.options import Directory, json_option, print_json
from deploykit.cli.releasing import (
    end_with,
    open_runner,
    open_source,
    print_table,
    show_preview,
    show_release,
    site_argument,
    status_of,
    submodule_option,
    user_here,
)
from deploykit.cli.siteparts import part_option, put_live
from deploykit.cli.visible import visible


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
@click.option("--mirror", type=click.Path(path_type=Path, exists=True), help="A mirror, or any clone.")
@part_option
@submodule_option
@click.option(
    "--ref",
    "refs",
    multiple=True,
    metavar="[REPO=]REF",
    help="The tag or branch to deploy, e.g. v1.4 or refs/heads/main; of one repository of several: app=v1.4.",
)
@click.option(
    "--commit",
    "commits",
    multiple=True,
    metavar="[REPO=]ID",
    help="What it must stand for; refused when it stands for another one.",
)
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
    mirror: Path | None,
    parts: tuple[str, ...],
    submodules: tuple[str, ...],
    refs: tuple[str, ...],
    commits: tuple[str, ...],
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

    A site of several repositories has them in its node's settings; those without a --ref stay as they are live.

    \b
    Example:
      deploykit release deploy /srv/www/shop --mirror shop.git --ref v1.4 --dry-run
      deploykit release deploy /srv/www/shop --mirror shop.git --ref v1.4
      deploykit release deploy /srv/www/farm --ref app=v3 --ref theme=v7
      deploykit release deploy /srv/www/farm --part app=app=app.git --part theme=web/theme=theme.git --ref app=v4
    """
    from deploykit.cli.siteparts import asked_of
    from deploykit.errors import UsageError
    from deploykit.release import Allowances

    allow = Allowances(moved=allow_moved, older=allow_older, drift=allow_drift)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_source(site_dir, settings, mirror, submodules, parts))
        if source is None:
            raise UsageError("from which repository?", "give --mirror")
        ref, commit, of_parts = asked_of(source, refs, commits)
        runner = stack.enter_context(open_runner(site_dir, settings, quiet=as_json or dry_run))
        if dry_run:
            again = again or prepare
            found = runner.preview(source, ref, commit, parts=of_parts, allow=allow, again=again, activate=not prepare)
            show_preview(found, as_json)
            return
        act = runner.prepare if prepare else partial(runner.deploy, again=again)
        result = act(source, ref, commit, parts=of_parts, request=request, requested_by=user_here(), allow=allow)
    end_with(result, as_json)


@release.command()
@site_argument
@click.argument("which", default="")
@click.option("--mirror", type=click.Path(path_type=Path, exists=True), help="To write it anew if it is gone.")
@part_option
@submodule_option
@click.option("--allow-drift", is_flag=True, help="Take it as it is, although files in it were edited by hand.")
@json_option
def activate(
    site_dir: Path,
    settings: Path | None,
    which: str,
    mirror: Path | None,
    parts: tuple[str, ...],
    submodules: tuple[str, ...],
    allow_drift: bool,
    as_json: bool,
) -> None:
    """Put a prepared release live: the newest, or the one named by number, tag, commit or name.

    \b
    Example:
      deploykit release activate /srv/www/shop
    """
    from deploykit.release import Allowances

    allow = Allowances(drift=allow_drift)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_source(site_dir, settings, mirror, submodules, parts))
        runner = stack.enter_context(open_runner(site_dir, settings, quiet=as_json))
        result = put_live(lambda it: runner.activate(which, source=it, requested_by=user_here(), allow=allow), source)
    end_with(result, as_json)


@release.command()
@click.argument("directory", type=Directory(path_type=Path, file_okay=False, resolve_path=False))
@click.option(
    "--site",
    "site_dir",
    type=click.Path(path_type=Path),
    help="The site's directory; needed unless DIRECTORY is its `current`.",
)
@click.option(
    "--settings", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="As for `release deploy`."
)
@click.option("--mirror", type=click.Path(path_type=Path, exists=True), help="A mirror or clone that has what is live.")
@part_option
@submodule_option
@click.option("--ref", "refs", multiple=True, metavar="[REPO=]REF", help="What is live, as far as anybody knows.")
@click.option("--commit", "commits", multiple=True, metavar="[REPO=]ID", help="What it must stand for, or it alone.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and what differs from the commit.")
@click.option("--undo", is_flag=True, help="Put the directory back where it was.")
@json_option
def adopt(
    directory: Path,
    site_dir: Path | None,
    settings: Path | None,
    mirror: Path | None,
    parts: tuple[str, ...],
    submodules: tuple[str, ...],
    refs: tuple[str, ...],
    commits: tuple[str, ...],
    dry_run: bool,
    undo: bool,
    as_json: bool,
) -> None:
    """Make a directory that is live the first release of a site; no reader finds nothing meanwhile.

    DIRECTORY is what readers use: a directory, a clone, a farm of symlinks, a symlink to one, Capistrano's `current`.
    It is a symlink to the site's `current` afterwards. No file's content is changed.

    \b
    Example:
      deploykit release adopt /srv/www/shop --site /srv/sites/shop --mirror shop.git --ref v1.4 --dry-run
      deploykit release adopt /srv/www/shop --site /srv/sites/shop --mirror shop.git --ref v1.4
      deploykit release adopt /srv/www/shop --site /srv/sites/shop --undo
    """
    from deploykit.cli.adopting import GivenVersion, adopter_of, open_version, show_adopted, show_undone

    given = GivenVersion(mirror, parts, submodules, refs, commits)
    adopter, where = adopter_of(directory, site_dir, settings)
    if undo:
        show_undone(adopter.undo(), as_json)
        return
    with open_version(adopter, where, settings, given) as (source, ref, commit, of_parts):
        if dry_run:
            show_adopted(adopter.preview(source, ref, commit, parts=of_parts), as_json, would=True)
        else:
            by = user_here()
            show_adopted(adopter.adopt(source, ref, commit, parts=of_parts, requested_by=by), as_json)


@release.command()
@site_argument
@click.argument("which", default="")
@json_option
def discard(site_dir: Path, settings: Path | None, which: str, as_json: bool) -> None:
    """Remove a prepared release that was never live: the newest, or the one named by number, tag, commit or name.

    With it go those prepared of the same tag and commit. No script runs. Where none waits, that is a success.

    \b
    Example:
      deploykit release discard /srv/www/shop v1.4
    """
    from deploykit.errors import ReleaseError
    from deploykit.release import DeployResult

    with open_runner(site_dir, settings, quiet=as_json) as runner:
        runner.site.require()
        state = runner.site.state()
        found = state.waiting(which) or (state.find(which) if which else None)
        if found is None and which:
            raise ReleaseError(f"there is no release {which}", "see `deploykit release list`")
        if found is None:
            result = DeployResult(outcome="success", detail="no release is prepared: there is nothing to discard")
        else:
            result = runner.discard(found.ref, found.commit, requested_by=user_here())
    end_with(result, as_json)


@release.command()
@site_argument
@click.option("--to", default="", help="A release by number, tag, commit or name; the last good one by default.")
@click.option("--mirror", type=click.Path(path_type=Path, exists=True), help="To write one anew that is gone.")
@part_option
@submodule_option
@click.option("--dry-run", is_flag=True, help="Print what would be done; touch nothing.")
@click.option("--allow-drift", is_flag=True, help="Go to a release as it is, although it was edited by hand.")
@json_option
def rollback(
    site_dir: Path,
    settings: Path | None,
    to: str,
    mirror: Path | None,
    parts: tuple[str, ...],
    submodules: tuple[str, ...],
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
        source = stack.enter_context(open_source(site_dir, settings, mirror, submodules, parts))
        runner = stack.enter_context(open_runner(site_dir, settings, quiet=as_json or dry_run))
        if dry_run:
            runner.site.require()
            plan = runner.rollback_plan(to, can_rebuild=mirror is not None, allow=allow)
            if plan.kind == "impossible" and source is not None:
                plan = runner.rollback_plan(to, can_rebuild=True, allow=allow)
            if as_json:
                print_json(attrs.asdict(plan))
            else:
                click.echo(f"{plan.kind}: {plan.why}")
            if plan.kind == "impossible":
                raise SystemExit(1)
            return
        result = put_live(lambda it: runner.rollback(to, source=it, requested_by=user_here(), allow=allow), source)
    end_with(result, as_json)


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
    with open_runner(site_dir, settings, quiet=True) as runner:
        runner.site.require()
        live, linked = runner.site.resolved_name(), runner.site.live_name()
        recorded = {r.name for r in runner.site.recorded().releases if r.present}
        found = [r for r in runner.releases() if every or r.present or r.name in recorded]
    if as_json:
        print_json([attrs.asdict(r) | {"current": r.name == live} for r in found])
        return
    print_table(
        ("", "release", "tag", "commit", "when", "by", "status"),
        [
            (
                "*" if r.name == live else "",
                str(r.seq),
                r.tag,
                r.commit[:12],
                r.activated or r.created,
                r.requested_by,
                status_of(r),
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

    with open_runner(site_dir, settings, quiet=True) as runner:
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
    show_release(found, done)


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
    with open_runner(site_dir, settings, quiet=True) as runner:
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
    with open_runner(site_dir, settings, quiet=True) as runner:
        found = runner.pin(which, pinned=not remove)
    click.echo(f"{found.name} is {'no longer pinned' if remove else 'pinned'}")
