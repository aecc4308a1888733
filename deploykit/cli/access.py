"""`deploykit access`: the daemon that keeps password files, and what people ask of it: grant, revoke, list."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploykit.cli.asking import asking, asking_options, counting, found_json, print_notes, print_table
from deploykit.cli.moments import MomentType
from deploykit.cli.options import F, Seconds, config_option, json_option, load, print_json
from deploykit.cli.viaoptions import console_for, via_options, via_settings
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.names import NodeName
    from deploykit.operations.access import AccessOutcome
    from deploykit.operations.keychoice import KeyChoice


#: A node shows only those of its sites that the grant of who asks names: none may mean either.
_NONE = (
    "no node that answered protects a site that you may ask about (does your grant of node.queried name it, and has "
    "the agent read [access.sites]?)"
)


@click.group(invoke_without_command=True)
@config_option
@click.option("--forget", is_flag=True, help="Drop the durable subscription at the broker, and end.")
@click.pass_context
def access(ctx: click.Context, config: Path | None, forget: bool) -> None:
    """Run the access daemon: signed commands change the password files in [access.sites], and each access ends in time.

    TERM ends it, HUP reads the settings again. Nodes answer questions about accesses by their agent.

    \b
    Examples:
      deploykit access --config /etc/deploykit/deploykit.toml
      deploykit access grant alice shop --until 7d
      deploykit access revoke alice shop
      deploykit access list
    """
    if ctx.invoked_subcommand is not None:
        return
    from deploykit.daemons.access import daemon

    if forget:
        daemon.forget(load(config))
    else:
        daemon.run(lambda: load(config), on_ready=lambda name: click.echo(f"ready: {name}"))


def _command_options(function: F) -> F:
    """Add what `grant` and `revoke` have in common."""
    function = click.option(
        "--node",
        "nodes",
        multiple=True,
        help="Only on this node; may be repeated.  [default: all that protect the site]",
    )(function)
    return click.option(
        "--timeout", default=30.0, show_default=True, type=Seconds(0.1), help="Seconds to wait for the nodes' reports."
    )(function)


@access.command()
@click.argument("user")
@click.argument("site")
@click.option(
    "--until", type=MomentType(), help="When it ends: 7d, or 2026-12-31T18:00Z.  [default: the nodes' 14 days]"
)
@click.option("--extend", is_flag=True, help="Move the end of an access that is there; the password stays.")
@_command_options
@asking_options
@via_options
@json_option
@click.pass_context
def grant(
    ctx: click.Context,
    /,
    user: str,
    site: str,
    until: datetime | None,
    extend: bool,
    nodes: Sequence[str],
    timeout: float,
    discovery_timeout: float,
    key: KeyChoice,
    config: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Let USER see SITE, with a new password. It is shown here, once; nodes get its hash.

    Needs the grant access.grant-requested. Nodes that are off now do it when they come back within the hour. Ends with
    0 when every node that protects SITE did it, 3 when they refused, else with 1.

    \b
    Examples:
      deploykit access grant alice shop
      deploykit access grant alice shop --until 2026-12-31T18:00Z
      deploykit access grant alice shop --extend --until 30d
      deploykit access grant alice shop --until 7d --via https://deploy.example.org
    """
    from deploykit.names import parse_site_name
    from deploykit.operations.access import grant_access

    name, named = parse_site_name(site), _nodes(nodes)
    chosen = via_settings(config, given)
    console = console_for(chosen, given)
    if console is not None:
        from deploykit.cli.viaaccess import grant_via

        times: dict[str, Any] = {"until": until, "extend": extend, "timeout": timeout}
        ctx.exit(grant_via(console, chosen, name, user, nodes=named, key=key, as_json=as_json, **times))
    with asking(config, key) as (settings, bus, signer, trust), counting() as heard:
        outcome = grant_access(
            *(settings, bus, signer, name, user),
            until=until,
            extend=extend,
            nodes=named,
            timeout=timeout,
            discovery_timeout=discovery_timeout,
            trust=trust,
            on_node=heard,
        )
    ctx.exit(_show(outcome, as_json=as_json))


@access.command()
@click.argument("user")
@click.argument("site")
@_command_options
@asking_options
@via_options
@json_option
@click.pass_context
def revoke(
    ctx: click.Context,
    /,
    user: str,
    site: str,
    nodes: Sequence[str],
    timeout: float,
    discovery_timeout: float,
    key: KeyChoice,
    config: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """End what USER may see of SITE, at once.

    Needs the grant access.revoke-requested. Exit codes as for `grant`.

    \b
    Example:
      deploykit access revoke alice shop
    """
    from deploykit.names import parse_site_name
    from deploykit.operations.access import revoke_access

    name, named = parse_site_name(site), _nodes(nodes)
    chosen = via_settings(config, given)
    console = console_for(chosen, given)
    if console is not None:
        from deploykit.cli.viaaccess import revoke_via

        ctx.exit(revoke_via(console, chosen, name, user, nodes=named, timeout=timeout, key=key, as_json=as_json))
    with asking(config, key) as (settings, bus, signer, trust), counting() as heard:
        outcome = revoke_access(
            *(settings, bus, signer, name, user),
            nodes=named,
            timeout=timeout,
            discovery_timeout=discovery_timeout,
            trust=trust,
            on_node=heard,
        )
    ctx.exit(_show(outcome, as_json=as_json))


@access.command("list", short_help="List who may see protected sites, as the nodes say.")
@click.argument("site", required=False)
@asking_options
@via_options
@json_option
@click.pass_context
def list_(
    ctx: click.Context,
    /,
    site: str | None,
    discovery_timeout: float,
    key: KeyChoice,
    config: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """List who may see SITE, or any protected site, as the nodes say now. Needs the grant node.queried.

    An end of "never" stands for a line that somebody else put into the file: it is not ours to end.

    \b
    Examples:
      deploykit access list
      deploykit access list shop --json
    """
    from deploykit.names import parse_site_name
    from deploykit.operations.access import list_access
    from deploykit.operations.times import shown_time

    name = parse_site_name(site) if site is not None else None
    chosen = via_settings(config, given)
    console = console_for(chosen, given)
    if console is not None:
        from deploykit.cli.viaaccess import list_via

        ctx.exit(list_via(console, name, as_json=as_json))
    with asking(config, key) as (settings, bus, signer, trust), counting() as heard:
        rows, found = list_access(*(settings, bus, signer, name), timeout=discovery_timeout, trust=trust, on_node=heard)
    protected = {node.node: [*node.protects] for node in found.nodes if node.protects}
    if as_json:
        users = [
            {
                "site": row.site,
                "user": row.user,
                "requested_by": row.requested_by,
                "nodes": {node: _text(until) for node, until in row.nodes.items()},
            }
            for row in rows
        ]
        print_json({"access": users, "protects": protected, **found_json(found)})
    else:
        print_notes(found.notes)
        cells = [
            (
                row.site,
                row.user,
                shown_time(row.until) if row.until is not None else "never",
                row.requested_by,
                ", ".join(row.nodes),
            )
            for row in rows
        ]
        if cells:
            print_table(("site", "user", "until", "by", "nodes"), cells)
        else:
            click.echo("nobody has access" if protected else _NONE)
    ctx.exit(0 if protected else 1)


def _nodes(names: Sequence[str]) -> tuple[NodeName, ...]:
    from deploykit.names import parse_node_name

    return tuple(dict.fromkeys(parse_node_name(name) for name in names))


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _show(outcome: AccessOutcome, *, as_json: bool) -> int:
    """Print what became of a command, and return the exit code. The password is shown where it is, or may be, good."""
    from deploykit.messages import AccessGrantRequested
    from deploykit.operations.times import shown_time

    message = outcome.message
    print_notes(outcome.notes)
    password = outcome.password if outcome.done or outcome.silent else ""
    if as_json:
        print_json(_as_json(outcome, password))
        return outcome.exit_code
    for node, report in outcome.reports.items():
        until = f" until {shown_time(report.until)}" if report.until is not None else ""
        why = f": {report.detail}" if report.detail else ""
        click.echo(visible(f"{node}: {report.outcome}{until}{why}"))
    for node in outcome.silent:
        click.echo(f"{node}: no report yet; see `deploykit access list`")
    granted = isinstance(message, AccessGrantRequested)
    if not outcome.done:
        what = "has no access yet" if granted else "is not known to be without access"
        click.echo(visible(f"{message.user} {what} to {message.site}"))
    if password:
        click.echo(visible(f"the password of {message.user} for {message.site}, shown this once: {password}"))
    return outcome.exit_code


def _as_json(outcome: AccessOutcome, password: str) -> dict[str, Any]:
    message = outcome.message
    return {
        "site": message.site,
        "user": message.user,
        "id": message.id,
        "done": list(outcome.done),
        "silent": list(outcome.silent),
        "reports": {
            node: {"outcome": report.outcome, "until": _text(report.until), "detail": report.detail}
            for node, report in outcome.reports.items()
        },
        **({"password": password} if password else {}),
        "notes": list(outcome.notes),
    }


__all__ = ["access"]
