"""`deploykit nodes`: which nodes there are, what they hold, and which a selection chooses."""

from __future__ import annotations

from collections.abc import Iterator
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
from deploykit.cli.describednode import print_described
from deploykit.cli.locksof import look_at_locks
from deploykit.cli.nodetest import forbid_test_options, node_test_options, run_test
from deploykit.cli.options import json_option, print_json
from deploykit.cli.selecting import selection_options

if TYPE_CHECKING:
    from deploykit.messages import NodeDescribed, SiteState
    from deploykit.operations.keychoice import KeyChoice
    from deploykit.operations.nodes import FoundNodes


@click.command()
@selection_options
@click.option("--names", "names_only", is_flag=True, help="Print names alone, one a line, as `--nodes -` reads them.")
@click.option("-l", "--long", is_flag=True, help="Print all that each node said: classes, facts, sites, newest refs.")
@node_test_options
@asking_options
@json_option
@click.pass_context
def nodes(
    ctx: click.Context,
    /,
    test: bool,
    names_only: bool,
    long: bool,
    discovery_timeout: float,
    key: KeyChoice,
    config: Path | None,
    as_json: bool,
    **given: object,
) -> None:
    """Ask which nodes there are and what is live on their sites. Without options that choose, all nodes are shown.

    Nodes that are named, with -I or in a list, are waited for; with --nodes all others that answer are unexpected.
    Ends with 0 when nodes were found and all is as expected; 1 when none was, or some are silent, unexpected, not
    believed or two agents under one name.

    With --test it tries a selection on a node that files describe: it contacts nobody, and needs no settings. Ends with
    0 when the node matches, 1 when it does not, 2 when the selection is none.

    \b
    Examples:
      deploykit nodes
      deploykit nodes -C role::web --nodes web-servers.txt
      deploykit nodes -I web1 --long
      deploykit nodes -S 'nginx and env=live' --names > live.txt
      deploykit nodes --test -S 'nginx and env=live' --identity web1 --facts facts.json --classes classes.txt
    """
    from deploykit.errors import UsageError
    from deploykit.operations.nodes import find_nodes

    if test:
        ctx.exit(run_test(given, as_json=as_json))
    forbid_test_options(given)
    if names_only + long + as_json > 1:
        raise UsageError("--names, --long and --json each print something else", "give one of them")
    selection = selection_or_all(given)
    with asking(config, key) as (settings, bus, signer, trust), counting() as heard:
        found = find_nodes(
            settings,
            bus,
            selection,
            details=("facts", "sites", "refs") if long or as_json else ("facts", "sites"),
            key=signer,
            trust=trust,
            timeout=discovery_timeout,
            on_node=heard,
        )
        locks = look_at_locks(settings, bus, trust, (*found.nodes, *found.strangers))
    print_notes((*found.notes, *locks.notes))
    if as_json:
        print_json({"nodes": [_as_json(each) for each in found.nodes], "locks": locks.as_json, **found_json(found)})
    elif names_only or long:
        for each in found.nodes:
            click.echo(each.node)
            if long:
                print_described(each)
        print_notes([f"{node} is {state}" for node, state, *_ in sorted(_rows(found)) if state != "ok"])
    else:
        print_table(("node", "state", "version", "host", "sites"), sorted(_rows(found)))
    selection.check_count(len(found.nodes))
    ctx.exit(found.exit_code)


def _as_json(described: NodeDescribed) -> object:
    """Return a description as docs/wire-format.md has it."""
    import json

    from deploykit.wire import encode

    return json.loads(encode(described).body)["data"]


def _rows(found: FoundNodes) -> Iterator[tuple[str, ...]]:
    for kind, many in (("", found.nodes), ("unexpected", found.strangers)):
        for each in many:
            agents = len(found.twins.get(each.node, ()))
            state = " ".join(part for part in (kind, f"{agents} agents" if agents else "") if part)
            yield each.node, state or "ok", each.version, each.host, _sites(each)
    for node in found.doubted:
        yield node, "not believed", "", "", ""
    for node in found.silent:
        if node not in found.doubts:
            yield node, "silent", "", "", ""


def _sites(described: NodeDescribed) -> str:
    from deploykit.messages.site import named

    def live(site: SiteState) -> str:
        return named(site.ref, site.commit, site.release, parts=site.parts)

    return ", ".join(
        f"{site.site} {live(site) or ('unreadable' if site.problem else 'empty')}" for site in described.sites
    )
