"""`deploykit audit`: show what was decided, and verify that no record was changed or removed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from deploykit.cli.options import config_option, json_option, load, print_json, to_json
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.audit.chain import ChainReport

_file_option = click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The audit log, or a copy of it; default: the one the settings name.",
)


@click.group()
def audit() -> None:
    """Show who asked for what and what was decided, and verify the record of it.

    \b
    Example:
      deploykit audit show --decision denied --since 2h
      deploykit audit verify
    """


@audit.command()
@config_option
@_file_option
@click.option("--since", metavar="TIME", help="Only from then on: 30m, 2h, 7d, or 2026-01-31T12:00.")
@click.option("--decision", type=click.Choice(("allowed", "denied")), help="Only such decisions.")
@click.option("--site", "--target", "target", metavar="NAME", help="Only about this site, job or node.")
@click.option("--last", type=click.IntRange(0), default=50, show_default=True, help="The newest so many; 0 for all.")
@click.option("--head", is_flag=True, help="Only the last record's number and hash, to be noted elsewhere.")
@json_option
def show(
    config: Path | None,
    file: Path | None,
    since: str | None,
    decision: Literal["allowed", "denied"] | None,
    target: str | None,
    last: int,
    head: bool,
    as_json: bool,
) -> None:
    """Show decisions, oldest first, rotated files included.

    \b
    Example:
      deploykit audit show --site shop --last 10
      deploykit audit show --head
    """
    from datetime import UTC, datetime

    from deploykit.operations.audit import choose, line_of, parse_since, shown

    path = file or _path(config)
    if head:
        _show_head(path, as_json=as_json)
        return
    start = parse_since(since, datetime.now(UTC)) if since else None
    chosen = choose(path, since=start, decision=decision, target=target, last=last or None)
    for problem in chosen.unreadable:
        click.echo(f"{visible(problem)} (see `deploykit audit verify`)", err=True)
    if as_json:
        lines = [to_json(shown(record)) for record in chosen.records]
        click.echo("[" + "\n,".join(lines) + "]")
        return
    for record in chosen.records:
        click.echo(visible(line_of(record)))
    if not chosen.records:
        click.echo("no such records", err=True)


@audit.command()
@config_option
@_file_option
@click.option("--head", metavar="HEAD", help="Compare with what `audit show --head` printed earlier.")
@json_option
@click.pass_context
def verify(ctx: click.Context, config: Path | None, file: Path | None, head: str | None, as_json: bool) -> None:
    """Verify that the records are as they were written. Exit code 1: they are not; the first fault is named.

    A head that was noted on another machine also finds an end that was cut off, or records that were all made anew.

    \b
    Example:
      deploykit audit verify
      deploykit audit verify --head 1203:5b0c…
    """
    from deploykit.audit.files import verify_files
    from deploykit.operations.audit import parse_head

    path = file or _path(config)
    report = verify_files(path, noted=parse_head(head) if head else None)
    if as_json:
        _print_report(report)
    else:
        for note in report.notes:
            click.echo(f"note: {visible(note)}")
        if report.fault is None:
            click.echo(f"{report.records} records are as they were written; head {report.last}")
        else:
            click.echo(f"{visible(report.fault)}", err=True)
            click.echo(f"{report.records} records before it are as they were written", err=True)
    ctx.exit(1 if report.fault is not None else 0)


def _path(config: Path | None) -> Path:
    settings = load(config)
    return settings.audit.path_in(settings.state)


def _show_head(path: Path, *, as_json: bool) -> None:
    from deploykit.audit.files import verify_files
    from deploykit.errors import AuditError

    report = verify_files(path)
    if report.fault is not None:
        raise AuditError(f"{path} is not as it was written: {report.fault}", "see `deploykit audit verify`")
    head = report.last
    if as_json:
        print_json({"sequence": head.sequence, "hash": head.hash})
    else:
        click.echo(str(head))


def _print_report(report: ChainReport) -> None:
    fault = report.fault
    print_json(
        {
            "whole": fault is None,
            "records": report.records,
            "first": report.first,
            "head": str(report.last),
            "fault": None if fault is None else {"file": fault.file, "line": fault.line, "problem": fault.problem},
            "notes": list(report.notes),
        }
    )
