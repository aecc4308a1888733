"""`deploykit outbox`: look at queued and dead messages, queue a dead one again, drop one."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploykit.cli.options import config_option, json_option, load, print_json, to_json

if TYPE_CHECKING:
    from deploykit.outbox import Outbox, Record


_spool_option = click.option(
    "--spool",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The spool; default: the one the settings name.",
)


def _open(spool: Path | None, config: Path | None) -> Outbox:
    from deploykit.outbox import Outbox

    return Outbox(spool or load(config).outbox.path, create=False)


@click.group()
def outbox() -> None:
    """Look at queued and dead messages.

    \b
    Example:
      deploykit outbox list
      deploykit outbox list --dead
      deploykit outbox retry --all
    """


@outbox.command("list")
@config_option
@_spool_option
@click.option("--dead", is_flag=True, help="The dead letters, with their reasons.")
@click.option("--bad", is_flag=True, help="Files that are not records, set aside in bad/.")
@click.option("-n", "--limit", type=click.IntRange(1), help="At most so many, from the front.")
@json_option
def list_(config: Path | None, spool: Path | None, dead: bool, bad: bool, limit: int | None, as_json: bool) -> None:
    """List what waits to be sent, in the order in which it will be sent.

    \b
    Example:
      deploykit outbox list -n 20
    """
    box = _open(spool, config)
    if bad:
        rows: Iterable[dict[str, object]] = (
            {"name": file.name, "reason": file.reason} for file in islice(box.set_aside(), limit)
        )
        lines: Iterable[str] = (f"{row['name']!a}  {row['reason']}" for row in rows)
    else:
        records = islice(box.dead() if dead else box.pending(everyone=True), limit)
        rows, lines = map(_summary, records), map(_line, records)
    if as_json:
        _print_array(rows)
        return
    empty = True
    for line in lines:
        empty = False
        click.echo(line)
    if empty:
        click.echo("no dead letters" if dead else "nothing was set aside" if bad else "nothing waits", err=True)


@outbox.command()
@config_option
@_spool_option
@click.argument("id_")
@click.option("--body", is_flag=True, help="Only the body, byte for byte.")
@json_option
def show(config: Path | None, spool: Path | None, id_: str, body: bool, as_json: bool) -> None:
    """Show one message: where it goes, its headers and its body. The beginning or the end of the id is enough.

    \b
    Example:
      deploykit outbox show 01795421280567954382-8c35cb95.1
    """
    record = _open(spool, config).find(id_)
    if body:
        click.echo(record.frame.body, nl=False)
        return
    if as_json:
        text = record.frame.body.decode("utf-8", "backslashreplace")
        print_json({**_summary(record), "headers": dict(record.frame.headers), "body": text})
        return
    for name, value in _summary(record).items():
        if value not in ("", None):
            click.echo(f"{name + ':':<13}{_safe(str(value))}")
    for header, text in record.frame.headers.items():
        click.echo(f"  {_safe(header)}: {_safe(text)}")
    click.echo()
    for line in record.frame.body.decode("utf-8", "backslashreplace").splitlines():
        click.echo(_safe(line))


@outbox.command()
@config_option
@_spool_option
@click.argument("ids", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every dead letter.")
@json_option
def retry(config: Path | None, spool: Path | None, ids: tuple[str, ...], every: bool, as_json: bool) -> None:
    """Queue dead letters again, as the newest messages. They keep their contents and get new ids.

    \b
    Example:
      deploykit outbox retry 01795421280567954382-8c35cb95.1
    """
    box = _open(spool, config)
    moved = [{"id": record.id, "new_id": box.retry(record)} for record in _chosen(box, ids, every)]
    if as_json:
        print_json(moved)
        return
    for one in moved:
        click.echo(f"{one['id']} is queued again as {one['new_id']}")


@outbox.command()
@config_option
@_spool_option
@click.argument("ids", nargs=-1)
@click.option("--all-dead", "every", is_flag=True, help="Every dead letter.")
@json_option
def drop(config: Path | None, spool: Path | None, ids: tuple[str, ...], every: bool, as_json: bool) -> None:
    """Remove messages for good, waiting or dead. They will not be sent.

    \b
    Example:
      deploykit outbox drop 01795421280567954382-8c35cb95.1
    """
    box = _open(spool, config)
    gone = []
    for record in _chosen(box, ids, every):
        box.ack(record)
        gone.append(record.id)
    if as_json:
        print_json(gone)
        return
    for record_id in gone:
        click.echo(f"{record_id} is dropped")


def _chosen(box: Outbox, ids: tuple[str, ...], every: bool) -> Iterator[Record]:
    from deploykit.errors import UsageError

    if bool(ids) == every:
        raise UsageError("no messages named", "give their ids, or the option for all dead letters")
    if every:
        yield from box.dead()
        return
    # All are looked up before the first is touched, so that a wrong id changes nothing.
    yield from [box.find(one) for one in ids]


def _summary(record: Record) -> dict[str, object]:
    return {
        "id": record.id,
        "state": record.state,
        "destination": record.destination,
        "subject": record.frame.headers.get("subject", ""),
        "bytes": len(record.frame.body),
        "user": _user(record.uid),
        "queued": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.queued)),
        "reason": record.reason,
        "buried": record.dead_since,
    }


def _line(record: Record) -> str:
    found = _summary(record)
    line = f"{found['id']}  {found['queued']}  {found['user']}  {found['destination']}  {found['bytes']} B"
    if record.state == "dead":
        line += f"  {found['reason']}"
    return _safe(f"{line}  {found['subject']}".rstrip())


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _safe(text: str) -> str:
    from deploykit.daemons.service.logs import escape

    return escape(text)


def _print_array(rows: Iterable[dict[str, object]]) -> None:
    """Print a JSON array, one element a line, as the elements come: a backlog may be long."""
    between = "["
    for row in rows:
        click.echo(f"{between}{to_json(row)}")
        between = ","
    click.echo("[]" if between == "[" else "]")
