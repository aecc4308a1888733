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
@click.option("--web", is_flag=True, help="Press and sign in a web console over three nodes, until Ctrl-C.")
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="PORT", help="Of the web console; a free one where none is given."
)
@click.option("--keep", is_flag=True, help="Leave the directory with all repositories, settings and logs.")
@json_option
@click.pass_context
def demo(
    ctx: click.Context,
    broker: str | None,
    repo: Path | None,
    fleet: bool,
    web: bool,
    port: int | None,
    keep: bool,
    as_json: bool,
) -> None:
    """Show one push become a message, a mirror, a release and a report, in a temporary directory.

    Starts a broker, a git origin with the hook, a relay and a node; pushes, deploys a tag, kills the broker and
    pushes again. Every claim is checked with git and the file system. Ends with 0 only if each one held.

    With --fleet: three nodes, a release that the canary stops, one that reaches all, and the way back.

    With --web: the same nodes in the web console, at http://localhost:PORT/, to press, sign and go back; the page says
    what to try. It goes on until Ctrl-C.

    \b
    Examples:
      deploykit demo
      deploykit demo --fleet
      deploykit demo --web --port 8470
      deploykit demo --broker stomp://guest:guest@127.0.0.1:61613 --repo ~/src/site
    """
    from deploykit.demo.play import play, play_fleet, play_web
    from deploykit.errors import UsageError

    if fleet and web:
        raise UsageError("--fleet and --web are two demos", "give one of them")
    if port is not None and not web:
        raise UsageError("--port is for --web", "give both")
    if web:
        if broker is not None or repo is not None:
            raise UsageError("--web takes neither --broker nor --repo", "it brings its own")
        from deploykit.daemons.service.extras import needing_extra

        with needing_extra("web"):
            from deploykit.web import service as _  # noqa: F401 -- before anything is started
        play_web(port=port or 0, keep=keep, as_json=as_json)
        return
    if fleet:
        if broker is not None or repo is not None:
            raise UsageError("--fleet takes neither --broker nor --repo", "it brings its own")
        ctx.exit(0 if play_fleet(keep=keep, as_json=as_json) else 1)
    ctx.exit(0 if play(broker=broker, repo=repo, keep=keep, as_json=as_json) else 1)
