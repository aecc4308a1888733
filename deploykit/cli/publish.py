"""`deploykit publish`: one message, into the outbox or straight to the broker."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import click

from deploykit.cli.options import config_option, load
from deploykit.cli.signing import load_key, passphrase_file_option


@click.command()
@click.argument("text", required=False)
@click.option("--file", "file", type=click.File("rb"), help="A whole message (CloudEvents JSON) instead; - is stdin.")
@click.option("-d", "--destination", help="Where to; the topic of its type when absent.")
@click.option("--now", is_flag=True, help="Send it and wait for the broker's receipt, instead of queueing it.")
@click.option("--sign", "key", type=click.Path(path_type=Path, dir_okay=False), help="Sign it with this key.")
@passphrase_file_option
@config_option
def publish(
    text: str | None,
    file: BinaryIO | None,
    destination: str | None,
    now: bool,
    key: Path | None,
    passphrase_file: Path | None,
    config: Path | None,
) -> None:
    """Publish one message: TEXT becomes a notice for people, --file any message.

    \b
    Examples:
      deploykit publish "freeze until Monday"
      deploykit message encode ... | deploykit publish --file - --now
    """
    from deploykit.errors import UsageError
    from deploykit.operations.publish import frame_of_bytes, frame_of_text, send

    if (text is None) == (file is None):
        raise UsageError("give either TEXT or --file", 'e.g. deploykit publish "hello"')
    settings = load(config)
    signer = load_key(key, passphrase_file) if key is not None else None
    message, frame = frame_of_text(settings, text) if text is not None else frame_of_bytes(file.read())  # type: ignore[union-attr]
    target = send(settings, message, frame, destination=destination, now=now, key=signer)
    click.echo(f"{'sent' if now else 'queued'}: {message.summary} -> {target}")
