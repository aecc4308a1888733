"""`deploykit status`: what this node holds, or what the fleet has live."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploykit.cli.asking import asking_options, chooses
from deploykit.cli.options import json_option, load, print_json
from deploykit.cli.selecting import selection_options
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.operations.keychoice import KeyChoice


@click.command()
@selection_options
@click.option("--site", help="With nodes chosen: this site alone.")
@click.option("--ref", help="With nodes chosen: the tag or branch that is current; else the newest that is live.")
@asking_options
@json_option
@click.pass_context
def status(
    ctx: click.Context,
    /,
    site: str | None,
    ref: str | None,
    discovery_timeout: float,
    key: KeyChoice,
    config: Path | None,
    as_json: bool,
    **given: object,
) -> None:
    """Show what this node holds; with --all, or other nodes chosen, ask these what is live and compare it.

    This node: mirrors, what is live on each site, messages and builds that wait. Contacts no broker, origin or build
    server. Ends with 1 when some of it cannot be read, or when another agent answers under this node's name.

    The fleet: each node is current, outdated, other, modified, failed, silent or unexpected, for each site. Ends with 1
    when not all are current.

    \b
    Examples:
      deploykit status --config /etc/deploykit/deploykit.toml
      deploykit status --all
      deploykit status --site shop --ref v1.2 -C role::web --nodes web-servers.txt
    """
    from deploykit.cli.fleetstatus import show_fleet
    from deploykit.errors import UsageError

    if chooses(given) or site is not None or ref is not None:
        ctx.exit(
            show_fleet(
                given,
                site=site,
                ref=ref,
                discovery_timeout=discovery_timeout,
                key=key,
                config=config,
                as_json=as_json,
            )
        )
    if given.get("chosen_exclude") or given.get("chosen_count") is not None:
        raise UsageError("--exclude and --expect go with nodes that are chosen", "--all for every node")
    ctx.exit(_show_node(config, as_json=as_json))


def _show_node(config: Path | None, *, as_json: bool) -> int:
    """Print what this node holds, and return the exit code."""
    from deploykit.messages import one_line
    from deploykit.operations.status import describe, exit_code

    node = describe(load(config))
    code = exit_code(node)
    if as_json:
        print_json(node)
        return code
    click.echo(f"node {node['node']}")
    for mirror in node["mirrors"]:
        after = ", fetched after builds" if "fetch_on" in mirror else ""
        _print_entry("mirror", mirror, f"{mirror['repo']}  {mirror['refs']} refs{after}")
    for site in node["sites"]:
        jobs = site.get("require_build")
        needs = f", requires a build of {', '.join(map(str, jobs))}" if isinstance(jobs, list) else ""
        _print_entry("site", site, f"{site['site']}  {site['current'] or 'nothing is live'}{needs}")
        parts = site.get("parts")
        for part in parts if isinstance(parts, list) else ():
            click.echo(f"  part    {part['repo']} {part['ref']} {part['commit'][:12]}")
        locks = site.get("locks")
        for lock in locks if isinstance(locks, list) else ():
            click.echo(f"  lock    {site['site']} is {visible(lock)}")
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
    return code


def _print_entry(kind: str, entry: Mapping[str, object], text: str) -> None:
    click.echo(f"  {kind:<7} {entry.get('problem', text)}  {entry['path']}")
