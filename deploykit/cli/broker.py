"""`deploykit broker`: the embedded broker, for trying things out."""

from __future__ import annotations

from pathlib import Path

import click

from deploykit.cli.options import json_option, print_json


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=61613, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Keep queues here over a restart.")
@click.option("--user", help="The login that clients need; without it anybody may connect.")
@click.option("--passcode-file", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Its passcode.")
@json_option
def broker(
    host: str, port: int, data: Path | None, user: str | None, passcode_file: Path | None, as_json: bool
) -> None:
    """Run the embedded STOMP broker in the foreground, until TERM or Ctrl-C. HUP reads the passcode again.

    For demos and tests, NOT for production: one thread, no clustering, no access rules.

    \b
    Example:
      deploykit broker --port 61613 --user demo --passcode-file ./passcode
    """
    from deploykit.daemons.broker import run
    from deploykit.errors import UsageError

    if (user is None) != (passcode_file is None):
        raise UsageError("--user and --passcode-file go together")

    def users() -> dict[str, str] | None:
        return {user: _passcode_in(passcode_file)} if user and passcode_file else None

    def ready(address: str) -> None:
        if as_json:
            print_json({"ready": True, "address": address})
        else:
            click.echo(f"ready: {address} (not for production)")

    run(host=host, port=port, data=data, load_users=users, on_ready=ready)


def _passcode_in(file: Path) -> str:
    from deploykit.errors import UsageError

    try:
        passcode = file.read_text(encoding="utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise UsageError(f"{file} holds no passcode: it is not UTF-8", "one line of text") from None
    if not passcode or "\n" in passcode:
        raise UsageError(f"{file} holds no passcode", "one line of text, not empty")
    return passcode
