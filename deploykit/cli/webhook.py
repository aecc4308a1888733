"""`deploykit webhook`: take the webhooks of forges, and try a payload without a server."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from deploykit.cli.options import config_option, json_option, load, print_json
from deploykit.cli.visible import visible
from deploykit.errors import UsageError

if TYPE_CHECKING:
    from deploykit.settings.node import Settings
    from deploykit.web.receiver.replay import Proof, ReplayedWebhook


@click.group(invoke_without_command=True)
@config_option
@click.option(
    "--listen",
    metavar="ADDRESS",
    help="HOST:PORT, [HOST]:PORT or unix:/PATH, instead of webhook.listen in the settings.",
)
@click.pass_context
def webhook(ctx: click.Context, config: Path | None, listen: str | None) -> None:
    """Take the webhooks of the forges in [webhook.sources], put what they push into the outbox, and send it.

    TERM ends it, HUP reads the settings again and keeps the socket. Put a proxy that speaks TLS before it. It prints
    its address once it listens. docs/webhooks.md says what to set at each forge.

    \b
    Examples:
      deploykit webhook --config /etc/deploykit/deploykit.toml
      deploykit webhook --listen 127.0.0.1:8471
      deploykit webhook test forge push.json
    """
    ctx.obj = config
    if ctx.invoked_subcommand is not None:
        return
    from deploykit.daemons.service.extras import needing_extra

    with needing_extra("web"):
        from deploykit.web.receiver import service

    def settings() -> Settings:
        loaded = load(config)
        if listen is None:
            return loaded
        from deploykit.settings.service import parse_listen_address

        try:
            parse_listen_address(listen)
        except UsageError as error:
            raise UsageError(f"--listen: {error.problem}") from None
        return attrs.evolve(loaded, webhook=attrs.evolve(loaded.webhook, listen=listen))

    service.run(settings, on_ready=lambda name: click.echo(f"ready: {name}"))


@webhook.command()
@click.argument("source")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="As the sender sends it; repeat it.")
@click.option("--event", default="", metavar="NAME", help="The forge's name of the event.  [default: a push]")
@click.option("--sign", is_flag=True, help="Sign it with the source's own secret, and verify that.")
@click.option("--check", is_flag=True, help="Verify the signature or token among the headers given.")
@config_option
@json_option
@click.pass_context
def test(
    ctx: click.Context,
    source: str,
    file: Path,
    headers: tuple[str, ...],
    event: str,
    sign: bool,
    check: bool,
    config: Path | None,
    as_json: bool,
) -> None:
    """Show what would be published of the payload in FILE (- reads standard input), or why nothing would.

    SOURCE is a name in [webhook.sources]. No server is needed and nothing is published. Without --sign and --check no
    secret is read. Ends with 0 if something would be published, else with 1.

    \b
    Examples:
      deploykit webhook test forge push.json
      deploykit webhook test forge delete.json --event delete --sign
      deploykit webhook test forge body --header 'X-Hub-Signature-256: sha256=…' --check --json
    """
    from deploykit.messages import utc_now
    from deploykit.web.receiver.replay import replay

    if sign and check:
        raise click.UsageError("give --sign or --check, not both")
    proof: Proof = "sign" if sign else "check" if check else "none"
    given = dict(_header(text) for text in headers)
    raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    settings = load(config or ctx.obj)
    found = replay(settings, source, raw, given, event=event, proof=proof, now=utc_now())
    published = bool(found.outgoing) and found.read is not None and found.read.outcome == "queued"
    if as_json:
        print_json(_as_json(found, published=published))
    else:
        for line in _lines(found):
            click.echo(visible(line))
    ctx.exit(0 if published else 1)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise click.UsageError(f"--header: expected 'NAME: VALUE', not {text[:60]!a}")
    return name.strip(), value.strip()


def _lines(found: ReplayedWebhook) -> Iterator[str]:
    """Yield what a person reads."""
    read = found.read
    if read is None:
        yield f"refused with {found.status}: {found.reason}"
        return
    about = f"event {read.event or 'unknown'}, repository {read.repository or 'none'}"
    yield f"{about}, delivery {read.id or 'without an id: its payload names it'}"
    if read.outcome != "queued":
        yield f"answered with {found.status}, not published: {found.reason}"
    for message in read.messages:
        yield f"{message.TYPE}: {message.summary}"
    for outgoing in found.outgoing:
        yield f"  to {outgoing.destination}: {outgoing.frame.headers.get('subject', '')}"


def _as_json(found: ReplayedWebhook, *, published: bool) -> dict[str, object]:
    read = found.read
    return {
        "published": published,
        "status": found.status,
        "result": "refused" if read is None else read.outcome,
        "reason": found.reason,
        "event": "" if read is None else read.event,
        "repository": "" if read is None else read.repository,
        "delivery": "" if read is None else read.id,
        "digest": "" if read is None else read.digest.hex(),
        "messages": [
            {"destination": each.destination, "headers": dict(each.frame.headers), "body": _body(each.frame.body)}
            for each in found.outgoing
        ],
    }


def _body(raw: bytes) -> object:
    """Return a body as JSON where it is that, else as text."""
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode("utf-8", "replace")
