"""`deploykit demo`: one push, or a small fleet, end to end, in a temporary directory."""

from __future__ import annotations

from pathlib import Path

import click

from deploykit.cli.options import json_option


@click.command()
@click.option("--broker", metavar="ADDRESS", help="Use this broker, e.g. stomp://login:passcode@127.0.0.1:61613.")
@click.option(
    "--repo",
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    metavar="PATH",
    help="Start from this git repository; it is cloned, never written to.",
)
@click.option("--fleet", is_flag=True, help="Show three nodes: a canary that fails, a rollout, the way back.")
@click.option("--keep", is_flag=True, help="Leave the directory with all repositories, settings and logs.")
@json_option
@click.pass_context
def demo(ctx: click.Context, broker: str | None, repo: Path | None, fleet: bool, keep: bool, as_json: bool) -> None:
    """Show one push become a message, a mirror, a release and a report, in a temporary directory.

    Starts a broker, a git origin with the hook, a relay and a node; pushes, deploys a tag, kills the broker and
    pushes again. Every claim is checked with git and the file system. Ends with 0 only if each one held.

    With --fleet: three nodes, a release that the canary stops, one that reaches all, and the way back.

    \b
    Examples:
      deploykit demo
      deploykit demo --fleet
      deploykit demo --broker stomp://guest:guest@127.0.0.1:61613 --repo ~/src/site
    """
    from deploykit.demo.play import play, play_fleet
    from deploykit.errors import UsageError

    if fleet:
        if broker is not None or repo is not None:
            raise UsageError("--fleet takes neither --broker nor --repo", "it brings its own")
        ctx.exit(0 if play_fleet(keep=keep, as_json=as_json) else 1)
    ctx.exit(0 if play(broker=broker, repo=repo, keep=keep, as_json=as_json) else 1)
