"""`deploykit status` with nodes chosen: what is live in the fleet, and how far it is from what it should be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploykit.cli.asking import asking, counting, found_json, print_notes, print_table, selection_or_all
from deploykit.cli.locksof import look_at_locks
from deploykit.cli.options import print_json
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.fleet.drift import NodeDrift, SiteDrift
    from deploykit.operations.fleetstatus import FleetStatus
    from deploykit.operations.keychoice import KeyChoice


def show_fleet(
    given: Mapping[str, object],
    *,
    site: str | None,
    ref: str | None,
    discovery_timeout: float,
    key: KeyChoice,
    config: Path | None,
    as_json: bool,
) -> int:
    """Ask the chosen nodes, print each site with its nodes, and return the exit code."""
    from deploykit.names import parse_site_name
    from deploykit.operations.fleetstatus import fleet_status

    selection = selection_or_all(given)
    only = parse_site_name(site) if site is not None else None
    with asking(config, key) as (settings, bus, signer, trust), counting() as heard:
        status = fleet_status(
            settings,
            bus,
            selection,
            site=only,
            ref=ref,
            timeout=discovery_timeout,
            key=signer,
            trust=trust,
            on_node=heard,
        )
        locks = look_at_locks(settings, bus, trust, (*status.found.nodes, *status.found.strangers), site=only)
    print_notes((*status.notes, *locks.notes))
    if as_json:
        print_json({**_as_json(status), "locks": locks.as_json})
    else:
        for at, each in enumerate(status.sites):
            _print_site(each, first=at == 0)
        if len(status.sites) > 1 and status.found.silent:
            click.echo(f"\nsilent: {', '.join(status.found.silent)}")
    selection.check_count(len(status.found.nodes))
    return status.exit_code


def _print_site(site: SiteDrift, *, first: bool) -> None:
    from deploykit.messages.site import named

    counts = ", ".join(f"{count} {kind}" for kind, count in site.counts.items())
    current = f"current is {site.wanted} ({site.wanted.reason})" if site.wanted else "nothing is live"
    click.echo(f"{'' if first else chr(10)}{visible(f'{site.site}: {counts}; {current}')}")
    for part in site.wanted.parts if site.wanted else ():
        click.echo(visible(f"  {part.repo} {named(part.ref, part.commit)}"))
    print_table(("node", "drift", "live", "since", "detail"), [_row(node) for node in site.nodes])


def _row(node: NodeDrift) -> tuple[str, ...]:
    from deploykit.operations.times import shown_time

    since = shown_time(node.since) if node.since is not None else ""
    return node.node, node.drift, str(node.live or ""), since, node.detail


def _as_json(status: FleetStatus) -> dict[str, object]:
    from deploykit.messages.site import parts_entry

    return {
        "sites": [
            {
                "site": site.site,
                "current": None
                if site.wanted is None
                else {
                    "ref": site.wanted.ref,
                    "commit": site.wanted.commit,
                    "parts": parts_entry(site.wanted.parts),
                    "reason": site.wanted.reason,
                },
                "counts": dict(site.counts),
                "nodes": [
                    {
                        "node": node.node,
                        "drift": node.drift,
                        "release": node.live.release if node.live else "",
                        "ref": node.live.ref if node.live else None,
                        "commit": node.live.commit if node.live else None,
                        "parts": parts_entry(node.live.parts) if node.live else [],
                        "since": node.since.isoformat() if node.since else None,
                        "detail": node.detail,
                    }
                    for node in site.nodes
                ],
            }
            for site in status.sites
        ],
        **found_json(status.found),
    }
