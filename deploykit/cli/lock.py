"""`deploykit lock` and `deploykit unlock`: nothing new goes live on a site for a while, and why."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploykit.cli.asking import asking, asking_options, counting, print_notes
from deploykit.cli.moments import MomentType
from deploykit.cli.options import json_option, print_json
from deploykit.cli.viaoptions import console_for, via_options, via_settings
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.operations.keychoice import KeyChoice
    from deploykit.operations.locks import LockOutcome


@click.command()
@click.argument("site")
@click.option("--reason", required=True, help="Why: everybody whom the lock keeps from deploying reads it.")
@click.option(
    "--until", type=MomentType(), help="When it ends: 2h, or 2026-12-31T18:00Z; at most 30 days.  [default: 24h]"
)
@click.option("--since", type=MomentType(), help="When it begins, in the same forms.  [default: at once]")
@click.option("--no-rollback", is_flag=True, help="Nodes must not go back to their previous release either.")
@asking_options
@via_options
@json_option
@click.pass_context
def lock(
    ctx: click.Context,
    /,
    site: str,
    reason: str,
    until: datetime | None,
    since: datetime | None,
    no_rollback: bool,
    discovery_timeout: float,
    key: KeyChoice,
    config: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Lock SITE: its nodes refuse to put anything new live, and say who locked it, why, and until when.

    Needs the grant site.locked. Nodes keep a lock through restarts; one that is off hears of it from the others. Ends
    with 0 when every node that answered holds the lock, else with 1.

    \b
    Examples:
      deploykit lock shop --reason "audit until Monday" --until 3d
      deploykit lock shop --reason "disk is full" --via https://deploy.example.org
      deploykit lock shop --reason "release freeze" --since 2026-12-20T00:00Z --until 2027-01-04T08:00Z
    """
    from deploykit.names import parse_site_name
    from deploykit.operations.locks import lock_site

    name = parse_site_name(site)
    chosen = via_settings(config, given)
    console = console_for(chosen, given)
    if console is not None:
        from deploykit.cli.vialock import lock_via

        times = {"until": until, "since": since}
        ctx.exit(
            lock_via(console, chosen, name, reason, **times, allow_rollback=not no_rollback, key=key, as_json=as_json)
        )
    with asking(config, key) as (settings, bus, signer, trust), counting() as heard:
        outcome = lock_site(
            settings,
            bus,
            signer,
            name,
            reason,
            until=until,
            since=since,
            allow_rollback=not no_rollback,
            timeout=discovery_timeout,
            trust=trust,
            on_node=heard,
        )
    ctx.exit(_show(site, outcome, as_json=as_json))


@click.command()
@click.argument("site")
@click.option("--reason", default="", help="Why, for those who look later.")
@asking_options
@via_options
@json_option
@click.pass_context
def unlock(
    ctx: click.Context,
    /,
    site: str,
    reason: str,
    discovery_timeout: float,
    key: KeyChoice,
    config: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Lift the lock of SITE. Its holder may, and whoever has the grant lock.release.

    Ends with 0 when every node that answered holds it to be lifted, or none was locked; else with 1.

    \b
    Examples:
      deploykit unlock shop
      deploykit unlock shop --reason "audit is over" --key ~/.ssh/id_ed25519_sk.pub
    """
    from deploykit.names import parse_site_name
    from deploykit.operations.locks import unlock_site

    name = parse_site_name(site)
    chosen = via_settings(config, given)
    console = console_for(chosen, given)
    if console is not None:
        from deploykit.cli.vialock import unlock_via

        ctx.exit(unlock_via(console, chosen, name, reason, key=key, as_json=as_json))
    with asking(config, key) as (settings, bus, signer, trust), counting() as heard:
        outcome = unlock_site(
            settings, bus, signer, name, reason, timeout=discovery_timeout, trust=trust, on_node=heard
        )
    ctx.exit(_show(site, outcome, as_json=as_json))


def _show(site: str, outcome: LockOutcome, *, as_json: bool) -> int:
    """Print what became of a statement, and return the exit code."""
    from deploykit.messages import SiteLocked
    from deploykit.operations.locks import not_locked

    message = outcome.message
    notes = list(outcome.notes)
    if outcome.lacks:
        notes.append(f"not on {', '.join(outcome.lacks)}: see what they show with `deploykit nodes --long`")
    also = "also" if outcome.holds and isinstance(message, SiteLocked) else "still"
    notes += [f"{site} is {also} {other}" for other in outcome.others]
    print_notes(notes)
    if as_json:
        print_json(_as_json(site, outcome))
        return outcome.exit_code
    if message is None:
        click.echo(not_locked(site, doubted=outcome.doubted))
        return outcome.exit_code
    count = f"{len(outcome.holds)} of {len(outcome.holds) + len(outcome.lacks)} nodes hold it"
    sent = visible(message.summary)
    click.echo(f"{sent}; {count}" if outcome.holds else f"no node holds it: {sent}")
    return outcome.exit_code


def _as_json(site: str, outcome: LockOutcome) -> dict[str, object]:
    from deploykit.messages import SiteLocked

    message = outcome.message
    locked = isinstance(message, SiteLocked)
    return {
        "site": site,
        "statement": None if message is None else ("locked" if locked else "unlocked"),
        "id": message.id if message is not None else None,
        "serial": message.serial if message is not None else None,
        "until": message.until.isoformat() if isinstance(message, SiteLocked) else None,
        "holds": list(outcome.holds),
        "lacks": list(outcome.lacks),
        "also_locked": [str(other) for other in outcome.others],
        "notes": list(outcome.notes),
    }


__all__ = ["lock", "unlock"]
