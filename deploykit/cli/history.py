"""`deploykit history`: what was done to a site, by the nodes' own journals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploykit.cli.asking import (
    asking,
    asking_options,
    counting,
    found_json,
    print_notes,
    print_table,
    selection_or_all,
)
from deploykit.cli.options import json_option, print_json
from deploykit.cli.selecting import selection_options

if TYPE_CHECKING:
    from deploykit.fleet.history import HistoryEntry
    from deploykit.operations.keychoice import KeyChoice


@click.command()
@click.argument("site")
@selection_options
@click.option(
    "-n", "--limit", default=20, show_default=True, type=click.IntRange(1, 200), help="Most operations of each node."
)
@asking_options
@json_option
@click.pass_context
def history(
    ctx: click.Context,
    /,
    site: str,
    limit: int,
    discovery_timeout: float,
    key: KeyChoice,
    config: Path | None,
    as_json: bool,
    **given: object,
) -> None:
    """Show what was done to a site on all nodes, or on those that are chosen: the newest first, by the nodes' clocks.

    Ends with 0 when all journals were read; 1 when no node has the site, or some are silent, unexpected or unreadable.

    \b
    Examples:
      deploykit history shop
      deploykit history shop -I web1 -n 100 --json
    """
    from deploykit.names import parse_site_name
    from deploykit.operations.sitehistory import site_history

    selection = selection_or_all(given)
    name = parse_site_name(site)
    with asking(config, key) as (settings, bus, signer, trust), counting() as heard:
        past = site_history(
            settings,
            bus,
            selection,
            name,
            limit=limit,
            timeout=discovery_timeout,
            key=signer,
            trust=trust,
            on_node=heard,
        )
    print_notes([*past.found.notes, *(f"{node} cannot read its journal: {why}" for node, why in past.unreadable)])
    if as_json:
        print_json(
            {
                "site": name,
                "operations": [_as_json(entry) for entry in past.entries],
                "nodes": list(past.nodes),
                "unreadable": dict(past.unreadable),
                **found_json(past.found),
            }
        )
    else:
        head = ("time", "node", "phase", "outcome", "release", "rollout", "by", "detail")
        print_table(head, [_row(entry) for entry in past.entries])
        print_notes([f"{node} is silent" for node in past.found.silent])
    selection.check_count(len(past.found.nodes))
    ctx.exit(past.exit_code)


def _row(entry: HistoryEntry) -> tuple[str, ...]:
    from deploykit.messages.site import named
    from deploykit.operations.times import shown_time

    did = entry.operation
    when = shown_time(entry.time) if entry.time is not None else ""
    release = named(did.ref, did.commit, did.release, parts=did.parts)
    return (
        when,
        entry.node,
        did.phase,
        did.outcome or "running",
        release,
        did.rollout or "",
        did.requested_by,
        did.detail,
    )


def _as_json(entry: HistoryEntry) -> dict[str, object]:
    from deploykit.messages.site import parts_entry

    did = entry.operation
    return {
        "node": entry.node,
        "number": did.number,
        "phase": did.phase,
        "outcome": did.outcome or "running",
        "release": did.release,
        "ref": did.ref,
        "commit": did.commit,
        "parts": parts_entry(did.parts),
        "requested_by": did.requested_by,
        "started": did.started.isoformat() if did.started else None,
        "finished": did.finished.isoformat() if did.finished else None,
        "detail": did.detail,
        "request": did.request,
        "rollout": did.rollout,
    }
