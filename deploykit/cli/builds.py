"""`deploykit builds`: the build results that this node knows, and whether they open a gate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from deploykit.cli.options import config_option, json_option, load, print_json
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.operations.builds import ListedResult

F = TypeVar("F", bound=Callable[..., Any])


def _filters(function: F) -> F:
    for option in (
        click.option("--job", default="", help="Only of this job."),
        click.option("--commit", default="", metavar="ID", help="Only of this commit; its first digits are enough."),
        click.option("--repo", default="", help="Only of this repository."),
    ):
        function = option(function)
    return function


@click.group()
def builds() -> None:
    """Look at the signed build results that are known here, and carry them to other nodes.

    \b
    Example:
      deploykit builds list --repo shop
      deploykit builds export --commit 1a2b3c4d > results.jsonl
      deploykit builds import results.jsonl
    """


@builds.command("list")
@config_option
@_filters
@click.option("-n", "--limit", default=50, show_default=True, type=click.IntRange(1), help="At most so many.")
@json_option
def list_(config: Path | None, repo: str, commit: str, job: str, limit: int, as_json: bool) -> None:
    """List known results, the latest first, and whether each counts. Of a job and commit the highest number that counts
    decides: a success opens the gate, anything else closes it.

    \b
    Example:
      deploykit builds list --repo shop --commit 1a2b3c4d
    """
    from deploykit.builds.gate import ago
    from deploykit.builds.store import builds_of
    from deploykit.messages import utc_now
    from deploykit.operations.builds import listed

    settings = load(config)
    found = list(listed(settings, builds_of(settings.state).find(repo=repo, commit=commit, job=job, limit=limit)))
    if as_json:
        print_json([_entry(each) for each in found])
        return
    if not found:
        click.echo("no build results are known here", err=True)
        return
    now = utc_now()
    rows = [("JOB", "NUMBER", "OUTCOME", "REPOSITORY", "COMMIT", "WHEN", "COUNTS")]
    rows += [
        (
            visible(each.stored.job),
            str(each.stored.number),
            each.stored.outcome,
            visible(each.stored.repo),
            each.stored.commit[:12],
            ago(now - each.stored.time),
            f"no: {visible(each.objection)}" if each.objection else "yes",
        )
        for each in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for row in rows:
        click.echo("  ".join([*(text.ljust(width) for text, width in zip(row[:6], widths, strict=True)), row[6]]))


@builds.command()
@config_option
@click.argument("job")
@click.argument("number", type=click.IntRange(1))
@click.option("--commit", default="", metavar="ID", help="Only of this commit; its first digits are enough.")
@json_option
def show(config: Path | None, job: str, number: int, commit: str, as_json: bool) -> None:
    """Show what is known of one build: its results, who signed them, and whether they count.

    \b
    Example:
      deploykit builds show shop-tests 42
    """
    from deploykit.builds.store import builds_of
    from deploykit.operations.builds import find_one, listed

    settings = load(config)
    found = list(listed(settings, find_one(builds_of(settings.state), job, number, commit)))
    if as_json:
        print_json([_entry(each) for each in found])
        return
    for at, each in enumerate(found):
        if at:
            click.echo()
        for name, value in _lines(each).items():
            click.echo(f"{name + ':':<13}{visible(value)}")


@builds.command()
@config_option
@_filters
def export(config: Path | None, repo: str, commit: str, job: str) -> None:
    """Print known results as lines that `builds import` and `deploy --evidence` read, signatures and all.

    \b
    Example:
      deploykit builds export --commit 1a2b3c4d > results.jsonl
    """
    from deploykit.builds import write_results
    from deploykit.builds.store import builds_of

    found = builds_of(load(config).state).find(repo=repo, commit=commit, job=job)
    click.echo(write_results(each.signed for each in found), nl=False)
    if not found:
        click.echo("no build results are known here", err=True)


@builds.command("import")
@config_option
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, allow_dash=True))
@json_option
@click.pass_context
def import_(ctx: click.Context, config: Path | None, files: tuple[Path, ...], as_json: bool) -> None:
    """Verify results from files, directories or `-`, and keep those that count. Ends with 3 where one does not.

    \b
    Example:
      deploykit builds import results.jsonl
    """
    from deploykit.operations.builds import import_results, read_files

    settings = load(config)
    done = list(import_results(settings, read_files(files)))
    for each in done:
        if as_json:
            print_json({"summary": each.summary, "new": each.new, "objection": each.objection})
        elif each.objection:
            click.echo(f"not kept: {visible(each.summary)}: {visible(each.objection)}", err=True)
        else:
            click.echo(f"{'kept' if each.new else 'known before'}: {visible(each.summary)}")
    ctx.exit(3 if any(each.objection for each in done) else 0)


def _lines(each: ListedResult) -> dict[str, str]:
    from deploykit.operations.times import shown_time

    stored = each.stored
    times = {"time": shown_time(stored.time), "received": shown_time(stored.received)}
    shown = {name: str(value) for name, value in {**_entry(each), **times}.items() if name != "objection"}
    return {**shown, "counts": f"no: {each.objection}" if each.objection else "yes"}


def _entry(each: ListedResult) -> dict[str, object]:
    stored = each.stored
    return {
        "job": stored.job,
        "number": stored.number,
        "outcome": stored.outcome,
        "repo": stored.repo,
        "commit": stored.commit,
        "time": stored.time.isoformat(),
        "received": stored.received.isoformat(),
        "signer": stored.signer,
        "counts": not each.objection,
        "objection": each.objection,
    }
