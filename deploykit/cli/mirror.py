"""`deploykit mirror`: sync, list, show and check git mirrors."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from deploykit.cli.options import Directory, Seconds, config_option, json_option, load, print_json
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.mirror import FetchResult, Progress
    from deploykit.mirror.model import ProgressFn
    from deploykit.settings.mirror import MirrorSettings

_LINE_EVERY = 5.0
_FEW = 20

_directory = Directory(path_type=Path, file_okay=False)
_there = click.Path(path_type=Path, file_okay=False, exists=True)
_file = click.Path(path_type=Path, dir_okay=False)


@click.group()
def mirror() -> None:
    """Sync, show and check git mirrors.

    \b
    Example:
      deploykit mirror sync https://git.example.net/site.git /srv/mirrors/site.git
      deploykit mirror check /srv/mirrors/site.git
    """


def origin_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add how to reach an origin, handed on as `settings: MirrorSettings`."""

    @click.option("--ref", "refs", multiple=True, metavar="PATTERN", help="Only these refs; e.g. 'refs/tags/v*'.")
    @click.option(
        "--deadline", type=Seconds(0.1), default=600.0, show_default=True, metavar="SECONDS", help="For all of it."
    )
    @click.option("--ssh-key", type=_file, metavar="FILE", help="The private key for ssh.")
    @click.option("--ssh-known-hosts", type=_file, metavar="FILE", help="The origin's host key must be in it.")
    @click.option("--ca-file", type=_file, metavar="FILE", help="Certificates to trust for https.")
    @click.option("--credentials-file", type=_file, metavar="FILE", help="Lines of https://USER:PASSWORD@HOST, 0600.")
    @click.option("--allow-http", is_flag=True, help="Also http://, where all goes in clear.")
    @click.option("--lfs", is_flag=True, help="Also the objects of Git LFS that the refs need.")
    @click.option("--lfs-url", default="", metavar="URL", help="Their server; URL/info/lfs of the origin by default.")
    @click.option(
        "--lfs-deadline",
        type=Seconds(0.1),
        default=3600.0,
        show_default=True,
        metavar="SECONDS",
        help="For these objects, after the refs.",
    )
    @functools.wraps(function)
    def with_settings(
        *,
        refs: tuple[str, ...],
        deadline: float,
        ssh_key: Path | None,
        ssh_known_hosts: Path | None,
        ca_file: Path | None,
        credentials_file: Path | None,
        allow_http: bool,
        lfs: bool,
        lfs_url: str,
        lfs_deadline: float,
        **rest: Any,
    ) -> object:
        from deploykit.mirror.refplan import matches_nothing
        from deploykit.settings.mirror import MirrorSettings

        for pattern in refs:
            if matches_nothing(pattern):
                raise click.BadParameter(
                    f"{pattern!a} matches no full ref name; write e.g. refs/heads/main, refs/tags/v1.* or refs/heads/*",
                    param_hint="'--ref'",
                )
        settings = MirrorSettings(
            deadline=deadline,
            ssh_key=ssh_key,
            ssh_known_hosts=ssh_known_hosts,
            ca_file=ca_file,
            credentials_file=credentials_file,
            allow_http=allow_http,
            lfs=lfs or bool(lfs_url),
            lfs_url=lfs_url,
            lfs_deadline=lfs_deadline,
        )
        for problem in settings.problems():
            raise click.UsageError(problem)
        return function(settings=attrs.evolve(settings, refs=refs) if refs else settings, **rest)

    return with_settings


@mirror.command()
@click.argument("url")
@click.argument("path", type=_directory)
@origin_options
@click.option("--allow-mass-deletion", is_flag=True, help="Follow the origin even if most of its refs are gone.")
@click.option("--lfs-commit", "commits", multiple=True, metavar="ID", help="Also the LFS objects of this commit.")
@json_option
def sync(
    url: str, path: Path, settings: MirrorSettings, allow_mass_deletion: bool, commits: tuple[str, ...], as_json: bool
) -> int:
    """Bring the mirror at PATH to what the origin at URL shows; make it when it is not there.

    Exit code 1 when objects of Git LFS are missing: they are tried again by the next one. Exit code 3 when a change was
    refused by a policy.

    \b
    Example:
      deploykit mirror sync git@git.example.net:site.git /srv/mirrors/site.git --ref 'refs/heads/main'
      deploykit mirror sync https://git.example.net/site.git /srv/mirrors/site.git --lfs
    """
    from deploykit.mirror import Mirror
    from deploykit.names import parse_object_id

    also = tuple(map(parse_object_id, commits))
    if also and not settings.lfs:
        raise click.UsageError("--lfs-commit: has no effect without --lfs")
    with Mirror.open(path, url, settings) as opened, _progress(quiet=as_json) as progress:
        if opened.lfs is not None:
            opened.lfs.forget()  # whoever asks by hand may have removed some
        result = opened.fetch(progress=progress, allow_mass_deletion=allow_mass_deletion, lfs_commits=also)
        for commit in also:
            opened.resolve(commit)  # it is here, and is a commit
    if as_json:
        changes = [{**attrs.asdict(change), "kind": change.kind} for change in result.changes]
        print_json({"path": str(path), **attrs.asdict(result), "changes": changes})
    else:
        _print_result(result, lfs=settings.lfs)
    if result.lfs.gaps or result.lfs.missing:
        return 1
    return 3 if result.refused else 0


def _print_result(result: FetchResult, *, lfs: bool) -> None:
    from deploykit.messages.base import one_line

    for change in result.changes[:_FEW]:
        click.echo(one_line(f"{change.kind:8} {change.old[:12]} -> {change.new[:12]}  {change.ref}"))
    if len(result.changes) > _FEW:
        click.echo(f"... and {len(result.changes) - _FEW} more")
    for refusal in result.refused:
        click.echo(one_line(f"refused  {refusal.name}: {refusal.reason}"), err=True)
    size = f"{result.objects} objects, {result.received / 1e6:.1f} MB"
    for gap in result.lfs.gaps:
        click.echo(one_line(f"missing {gap.ref}: {gap.reason}", limit=1000), err=True)
    for each in result.lfs.missing[:_FEW] if not result.lfs.gaps else ():
        click.echo(one_line(f"missing {each.path}: {each.reason}", limit=1000), err=True)
    click.echo(f"{len(result.changes)} refs changed, {size} in {result.seconds:.2f} s")
    if lfs:
        click.echo(f"LFS: {result.lfs.objects} objects, {result.lfs.received / 1e6:.1f} MB")


@mirror.command("list")
@click.argument("directory", required=False, type=_there)
@config_option
@json_option
def list_mirrors(directory: Path | None, config: Path | None, as_json: bool) -> None:
    """List the mirrors in DIRECTORY; without one, those of the settings.

    \b
    Example:
      deploykit mirror list /srv/mirrors
    """
    from deploykit.mirror.inspect import describe, find_mirrors

    where = directory if directory is not None else load(config).state / "mirrors"
    found = [describe(path) for path in find_mirrors(where)]
    if as_json:
        print_json([attrs.asdict(each) for each in found])
        return
    for each in found:
        size = f"{each.packs} packs, {each.bytes / 1e6:.1f} MB"
        click.echo(f"{visible(each.path)}  {each.refs} refs, {size}, head {each.head}")
    if not found:
        click.echo(f"no mirrors in {visible(where)}")


@mirror.command()
@click.argument("path", type=_there)
@json_option
def show(path: Path, as_json: bool) -> None:
    """Show what the mirror at PATH holds.

    \b
    Example:
      deploykit mirror show /srv/mirrors/site.git --json
    """
    from deploykit.messages.base import one_line
    from deploykit.mirror.inspect import describe, refs_of

    info, refs = describe(path), refs_of(path)
    if as_json:
        print_json({**attrs.asdict(info), "refs": refs})
        return
    size = f"{info.packs} packs, {info.bytes / 1e6:.1f} MB"
    click.echo(f"{visible(info.path)}: {size}, {info.format}, head {info.head}")
    for ref, oid in refs.items():
        click.echo(one_line(f"{oid} {ref}", limit=2000))


@mirror.command()
@click.argument("path", type=_there)
@click.option("--repair", "url", metavar="URL", help="If it is damaged, clone anew from URL and set this one aside.")
@origin_options
@json_option
def check(path: Path, url: str | None, settings: MirrorSettings, as_json: bool) -> int:
    """Read every byte of the mirror at PATH and print what is wrong or missing. Exit code 1 when anything is.

    Objects of Git LFS are checked where the mirror has some, and with --lfs.

    \b
    Example:
      deploykit mirror check /srv/mirrors/site.git --repair https://git.example.net/site.git
    """
    from deploykit.mirror import Mirror
    from deploykit.mirror.inspect import check_path
    from deploykit.mirror.lfs.checking import missing_objects

    report = check_path(path, lfs=settings.lfs)
    aside: Path | None = None
    missing: list[str] = []
    if url is not None and not report.sound:
        if (path / "lfs").is_dir() and not settings.lfs:
            raise click.UsageError("the mirror holds objects of Git LFS; add --lfs, or it has none after the repair")
        with Mirror.open(path, url, settings) as opened, _progress(quiet=as_json) as progress:
            aside = opened.reclone(progress=progress)
            missing = missing_objects(path) if settings.lfs else []
    if as_json:
        found = {"sound": report.sound, **attrs.asdict(report)}
        print_json({"path": str(path), **found, "set_aside": aside, "still_missing": missing})
    else:
        for problem in report.problems:
            click.echo(problem, err=True)
        state = "sound" if report.sound else "damaged"
        size = f"{report.objects} objects, {report.refs} refs"
        if report.lfs_objects:
            size += f", {report.lfs_objects} LFS objects"
        click.echo(f"{visible(path)}: {state}; {size} in {report.seconds:.1f} s")
        if aside is not None:
            click.echo(f"cloned anew; the damaged one is {visible(aside)}")
        for line in missing:
            click.echo(f"still missing: {line}", err=True)
    return 0 if report.sound or (aside is not None and not missing) else 1


# -- progress --------------------------------------------------------------------------------------------------------


@contextmanager
def _progress(*, quiet: bool) -> Iterator[ProgressFn | None]:
    """Yield a callback that shows progress: a bar on a terminal, a line now and then elsewhere."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _Lines()


@contextmanager
def _bar() -> Iterator[ProgressFn]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description:9}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} objects", markup=False),
        TextColumn("{task.fields[size]}", markup=False),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("listing", total=1, size="")

        def show(now: Progress) -> None:
            bar.update(task, description=now.phase, completed=now.objects, total=max(now.total, 1), size=_size(now))

        yield show


class _Lines:
    """Progress for a log: one line every few seconds, none for a fetch that is soon over."""

    def __init__(self) -> None:
        self._next = _LINE_EVERY

    def __call__(self, now: Progress) -> None:
        if now.seconds < self._next:
            return
        self._next = now.seconds + _LINE_EVERY
        of = f" of {now.total}" if now.total else ""
        click.echo(f"{now.phase}: {now.objects}{of} objects, {_size(now)}, {now.seconds:.0f} s", err=True)


def _size(now: Progress) -> str:
    return f"{now.received / 1e6:.1f} MB, {now.received / max(now.seconds, 0.001) / 1e6:.1f} MB/s"
