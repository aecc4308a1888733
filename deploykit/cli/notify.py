"""`deploykit notify`: what happens, to IRC, Matrix, Slack, webhooks and e-mail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploykit.cli.options import config_option, json_option, load, print_json
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.fleet.recordformat import RecordedMessage


@click.group(invoke_without_command=True)
@config_option
@click.pass_context
def notify(ctx: click.Context, config: Path | None) -> None:
    """Send what happens to the channels of [notify.channels]: IRC, Matrix, Slack, webhooks, e-mail, CDEvents.

    TERM ends it, HUP reads the settings again. Run it once in a fleet: two of them send every line twice.
    docs/notify.md says more.

    \b
    Examples:
      deploykit notify --config /etc/deploykit/deploykit.toml
      deploykit notify test ops
      deploykit notify render bus.jsonl
    """
    ctx.obj = config
    if ctx.invoked_subcommand is not None:
        return
    from deploykit.daemons.notify import service

    service.run(lambda: load(config), on_ready=lambda name: click.echo(f"ready: {name}"))


@notify.command(short_help="Send one line to a channel, and show what became of it.")
@click.argument("channel")
@config_option
@json_option
@click.pass_context
def test(ctx: click.Context, channel: str, config: Path | None, as_json: bool) -> None:
    """Send one line to CHANNEL of the settings, and show what became of it. No broker is needed.

    \b
    Example:
      deploykit notify test ops
    """
    from deploykit.daemons.notify.rehearsal import try_channel

    outcome = try_channel(load(config or ctx.obj), channel)
    sent = outcome.kind == "sent"
    if as_json:
        print_json({"channel": channel, "sent": sent, "why": outcome.why})
    elif sent:
        click.echo(f"sent to {channel}" + (f"; {visible(outcome.why)}" if outcome.why else ""))
    else:
        click.echo(f"not sent to {channel}: {visible(outcome.why)}", err=True)
    ctx.exit(0 if sent else 1)


@notify.command(short_help="Show what recorded messages become, channel by channel.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@config_option
@json_option
@click.option("--all", "everything", is_flag=True, help="Also messages that are no news, with the reason.")
@click.pass_context
def render(ctx: click.Context, file: Path, config: Path | None, as_json: bool, everything: bool) -> None:
    """Show what the messages in FILE become, channel by channel. Sends nothing.

    FILE is what `deploykit watch --record FILE` writes, or the body of one message.

    \b
    Examples:
      deploykit notify render /var/log/deploykit/bus.jsonl
      deploykit message encode notice text="hello" > hello.json && deploykit notify render hello.json
    """
    from deploykit.daemons.notify.rehearsal import rehearse

    heard = shown = 0
    for found in rehearse(load(config or ctx.obj), _records(file)):
        heard += 1
        if not (found.sent or everything or found.standing == "doubtful"):
            continue
        shown += 1
        if as_json:
            print_json(
                {
                    "summary": found.summary,
                    "kinds": found.kinds,
                    "standing": found.standing,
                    "why": found.why,
                    "sent": dict(found.sent),
                }
            )
            continue
        about = ", ".join(filter(None, (*found.kinds, found.standing)))
        click.echo(f"{visible(found.summary)}{f' [{about}]' if about else ''}")
        for name, text in found.sent.items():
            click.echo(f"  {name}: {visible(text)}")
        if found.why:
            click.echo(f"  nothing is sent: {visible(found.why)}")
    if not shown:
        many = "the one message in it is no" if heard == 1 else f"none of {heard} messages is"
        click.echo(f"deploykit: {file}: {many} news for a channel (--all shows why)", err=True)


def _records(file: Path) -> Iterator[RecordedMessage]:
    """Yield the messages of a recorded log, or the one message whose body a file is.

    Raises:
        UsageError: it is neither.
    """
    from deploykit.errors import UsageError
    from deploykit.fleet.recordformat import RecordedMessage
    from deploykit.fleet.recordreader import ReadCounts, RecordLog
    from deploykit.messages import utc_now
    from deploykit.wire.codec import CONTENT_TYPE
    from deploykit.wire.strictjson import MAX_BODY

    counts = ReadCounts()
    with RecordLog([file]) as log:
        yield from log.messages(counts)
        if counts.messages:
            return
    with file.open("rb") as stream:
        body = stream.read(MAX_BODY + 1)
    if len(body) > MAX_BODY or not body.lstrip().startswith(b"{") or body.startswith(b'{"deploykit-record"'):
        raise UsageError(f"{file} holds no message", "give a file of `deploykit watch --record`, or a message's body")
    yield RecordedMessage(received=utc_now(), destination="", headers={"content-type": CONTENT_TYPE}, body=body)
