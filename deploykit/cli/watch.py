"""`deploykit watch`: print each message on the bus as it passes."""

from __future__ import annotations

from pathlib import Path

import click

from deploykit.cli.options import config_option, json_option, load


@click.command()
@click.option("-d", "--destination", "destinations", multiple=True, help="Instead of all topics in the settings.")
@click.option("-n", "--count", type=click.IntRange(min=1), help="End after so many messages.")
@click.option("--durable", metavar="NAME", help="The broker keeps messages for NAME while nobody watches.")
@click.option("--forget", is_flag=True, help="With --durable: remove NAME at the broker, and end.")
@click.option(
    "--record", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Append each message to FILE too."
)
@click.option(
    "--record-size",
    default=64,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="MiB after which FILE becomes FILE.1, and so on.",
)
@click.option("--record-keep", default=9, show_default=True, type=click.IntRange(0, 1000), help="Older files to keep.")
@config_option
@json_option
def watch(
    destinations: tuple[str, ...],
    count: int | None,
    durable: str | None,
    forget: bool,
    record: Path | None,
    record_size: int,
    record_keep: int,
    config: Path | None,
    as_json: bool,
) -> None:
    """Print one line for each message as it passes, or with --json the message itself. HUP reads the settings again.

    With --record, FILE gets every message byte for byte, signatures included, for `deploykit trace --from FILE`.
    A full disk does not end it: what could not be recorded is counted, in FILE too.

    \b
    Examples:
      deploykit watch
      deploykit watch --json -d /topic/deploykit.report
      deploykit watch --json --record /var/log/deploykit/bus.jsonl > /dev/null
    """
    from contextlib import ExitStack

    from deploykit.cli import print_error
    from deploykit.daemons import watch as daemon
    from deploykit.errors import UsageError
    from deploykit.fleet.recordwriter import RecordWriter

    if forget:
        if durable is None:
            raise UsageError("--forget goes with --durable NAME")
        daemon.forget(load(config), destinations=destinations, durable=durable)
        return
    with ExitStack() as stack:
        recorder = None
        if record is not None:
            writer = RecordWriter(record, size=record_size << 20, keep=record_keep, on_problem=print_error)
            recorder = stack.enter_context(writer)
        daemon.run(
            lambda: load(config),
            destinations=destinations,
            count=count,
            durable=durable,
            as_json=as_json,
            show=click.echo,
            on_ready=lambda: click.echo('{"ready": true}' if as_json else "ready: watching"),
            on_notice=print_error,
            recorder=recorder,
        )
