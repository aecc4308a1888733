"""`deploykit rollout start`, and what the other commands of `rollout` do with a rollout that only was proposed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploykit.cli.asking import print_notes
from deploykit.cli.options import config_option, json_option, load, print_json
from deploykit.cli.rolloutrun import answer_for, carry_out, connected, display_for
from deploykit.cli.signing import key_options

if TYPE_CHECKING:
    from deploykit.errors import UsageError
    from deploykit.operations.keychoice import KeyChoice
    from deploykit.settings.node import Settings


@click.command("start", short_help="Start a rollout that was proposed and approved.")
@click.argument("id_", metavar="ID")
@key_options(help="Sign the commands with this key instead; KEY.pub: an ssh-agent holds it.")
@config_option
@json_option
@click.pass_context
def start(ctx: click.Context, config: Path | None, id_: str, key: KeyChoice, as_json: bool) -> None:
    """Start a rollout that was proposed (`deploy --propose`) and that enough people have approved.

    ID may be `last`. Exit codes as of `deploy`; 3 where its approval is missing or over.

    \b
    Example:
      deploykit rollout start shop-20260131-1204
    """
    from deploykit.operations.proposals import find_proposal
    from deploykit.operations.propose import plan_approved
    from deploykit.operations.rollout import left_unfinished, start_rollout
    from deploykit.operations.rolloutstore import begun_since

    settings = load(config)
    path = find_proposal(settings.rollouts_directory, id_)
    if path is None:
        raise _not_proposed(settings, id_)
    planned = plan_approved(settings, path, key=key)
    plan = planned.plan
    later = begun_since(settings, plan, path)
    notes = [f"rollout {later} of {plan.site} was begun after this one was proposed"] if later else []
    print_notes((*planned.notes, *notes, *left_unfinished(settings, plan)))
    with connected(settings) as bus:
        display = display_for(plan, as_json=as_json, answer=answer_for(settings, plan.rollout))
        code = carry_out(settings, display, lambda observer: start_rollout(planned, bus, observer=observer))
    ctx.exit(code)


def _not_proposed(settings: Settings, id_: str) -> UsageError:
    """Return the error for an id that names no proposal: what it names instead, if anything."""
    from deploykit.errors import UsageError
    from deploykit.operations.rolloutstore import find_journal

    if id_ == "last":
        return UsageError("no proposal waits to be started", "see `deploykit rollout list`")
    try:
        begun = find_journal(settings.rollouts_directory, id_).parent.name
    except UsageError:
        return UsageError(
            f"there is no proposal {id_[:80]!a} in {settings.rollouts_directory}", "see `deploykit rollout list`"
        )
    return UsageError(f"rollout {begun} was started before", f"see `deploykit rollout show {begun}`")


def proposal_named(settings: Settings, id_: str) -> Path | None:
    """Return the proposal that an id names, where it names no rollout that was begun."""
    from deploykit.errors import UsageError
    from deploykit.operations.proposals import find_proposal
    from deploykit.operations.rolloutstore import find_journal

    if "/" in id_:
        return None
    try:
        find_journal(settings.rollouts_directory, id_)
    except UsageError:
        return find_proposal(settings.rollouts_directory, id_)
    return None


def show_proposal(settings: Settings, path: Path, *, as_json: bool) -> None:
    """Print a proposal: what its mandate says, and what is missing."""
    from deploykit.messages import utc_now
    from deploykit.operations.approval import ApprovalDesk
    from deploykit.operations.approvaltext import sheet_entry, sheet_lines
    from deploykit.operations.proposals import read_proposal

    now = utc_now()
    proposal = read_proposal(path)
    sheet = ApprovalDesk.from_settings(settings).asking(proposal.head.asks).sheet(proposal.mandate, now)
    if as_json:
        print_json({**sheet_entry(sheet), "state": "proposed"})
        return
    for line in sheet_lines(sheet, now):
        click.echo(line)
    click.echo("")
    rollout = proposal.plan.rollout
    if now > proposal.mandate.message.not_after:
        click.echo("proposed, and over: nobody can start it any more")
    else:
        click.echo("proposed; it has not begun")
        click.echo(f"to sign it:     deploykit approve {rollout} --key KEY")
        click.echo(f"to start it:    deploykit rollout start {rollout}")
    click.echo(f"to withdraw it: deploykit rollout abort {rollout}")


def withdraw_proposal(path: Path, *, as_json: bool) -> None:
    """Remove a proposal."""
    from deploykit.operations.proposals import withdraw

    rollout = path.parent.name
    withdraw(path)
    if as_json:
        print_json({"rollout": rollout, "withdrawn": True})
    else:
        click.echo(f"{rollout} is withdrawn; nothing was sent")


__all__ = ["proposal_named", "show_proposal", "start", "withdraw_proposal"]
