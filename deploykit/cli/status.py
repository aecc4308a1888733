"""`deploykit status`: what this node holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from deploykit.cli.options import config_option, json_option, load, print_json


@click.command()
@config_option
@json_option
@click.pass_context
def status(ctx: click.Context, config: Path | None, as_json: bool) -> None:
    """Show what this node holds: mirrors, what is live on each site, messages and builds that wait. Contacts no broker,
    origin or build server. Ends with 1 when some of it cannot be read, or when another agent answers under this node's
    name.

    \b
    Example:
      deploykit status --config /etc/deploykit/deploykit.toml
    """
    from deploykit.messages import one_line
    from deploykit.operations.status import describe, exit_code

    node = describe(load(config))
    code = exit_code(node)
    if as_json:
        print_json(node)
        ctx.exit(code)
    click.echo(f"node {node['node']}")
    for mirror in node["mirrors"]:
        after = ", fetched after builds" if "fetch_on" in mirror else ""
        _print_entry("mirror", mirror, f"{mirror['repo']}  {mirror['refs']} refs{after}")
    for site in node["sites"]:
        jobs = site.get("require_build")
        needs = f", requires a build of {', '.join(map(str, jobs))}" if isinstance(jobs, list) else ""
        _print_entry("site", site, f"{site['site']}  {site['current'] or 'nothing is live'}{needs}")
    for outbox in node["outbox"]:
        _print_entry("outbox", outbox, f"{outbox['waiting']} waiting")
    for results in node["builds"]:
        _print_entry("builds", results, f"{results['results']} results")
    for asked in node["jenkins"]:
        waiting = asked["waiting"] if isinstance(asked["waiting"], dict) else {}
        waits = ", ".join(f"{number} waiting for {server}" for server, number in waiting.items()) or "no build waits"
        refused = f", {asked['refused']} refused (see `deploykit jenkins list`)" if asked["refused"] else ""
        _print_entry("jenkins", asked, f"{waits}{refused}")
    for twin in node["twins"]:
        click.echo(f"  twin    {twin['instance']} on {twin['host']} uses this name, heard {twin['seconds_ago']} s ago")
    for warning in node["warnings"]:
        click.echo(f"  warning {one_line(warning)}")
    ctx.exit(code)


def _print_entry(kind: str, entry: Mapping[str, object], text: str) -> None:
    click.echo(f"  {kind:<7} {entry.get('problem', text)}  {entry['path']}")
