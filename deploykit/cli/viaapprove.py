"""`approve` through a console: the bytes come from it and are decoded here, the signature goes back to it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from deploykit.cli.options import print_json
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.fleet.mandates import HeldMandate
    from deploykit.operations.keychoice import KeyChoice
    from deploykit.settings.node import Settings
    from deploykit.via.client import ConsoleClient
    from deploykit.web.actions.shown import ActionOutcome, ProposalShown


def approve_via(
    console: ConsoleClient,
    settings: Settings,
    what: str,
    key: KeyChoice,
    *,
    no_sign: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Show what a proposal at a console allows, decoded from its bytes; ask; sign it here; hand the signature over."""
    from deploykit.via.proposing import mandate_of

    rollout = newest_proposal(console) if what == "last" else what
    proposal = read_proposal(console, rollout)
    held = mandate_of(proposal, rollout)
    if no_sign:
        show_waiting(settings, proposal, as_json=as_json)
        if not as_json:
            click.echo("nothing was signed")
        return
    if not as_json:
        _print_signed(proposal)
    outcome = sign_via(console, settings, held, key, yes=yes, as_json=as_json)
    if as_json:
        print_json({"rollout": rollout, "state": outcome.state, "detail": outcome.detail})
        return
    if outcome.state != "proposed":
        click.echo(f"to see it: deploykit rollout show {visible(rollout)} --via {visible(console.url)}")


def show_waiting(settings: Settings, proposal: ProposalShown, *, as_json: bool) -> None:
    """Print what a proposal allows, decoded from its bytes, and who has signed it, as the console says.

    Raises:
        PolicyRefused: its bytes are no mandate of that rollout.
    """
    from deploykit.messages import utc_now
    from deploykit.operations.approval import ApprovalDesk
    from deploykit.operations.approvaltext import sheet_entry
    from deploykit.via.proposing import mandate_of

    held = mandate_of(proposal, proposal.rollout)
    if as_json:
        sheet = ApprovalDesk.from_settings(settings).sheet(held, utc_now())
        print_json({**sheet_entry(sheet), "missing": proposal.missing, "signed_by": None})
        return
    _print(settings, held)
    _print_signed(proposal)


def sign_via(
    console: ConsoleClient, settings: Settings, held: HeldMandate, key: KeyChoice, *, yes: bool, as_json: bool
) -> ActionOutcome:
    """Show a mandate, ask, sign it with a key of this machine, and hand the signature over.

    Raises:
        PolicyRefused: its time is over, or, with `yes`, the key would count for nothing.
        UsageError: there is nobody to ask.
    """
    from deploykit.cli.confirming import confirmed, look_again
    from deploykit.errors import UsageError
    from deploykit.messages import utc_now
    from deploykit.operations.approval import ApprovalDesk
    from deploykit.via.proposing import signature_value
    from deploykit.web.actions.shown import ActionOutcome

    if as_json and not yes:
        raise UsageError("--json asks no question", "add --yes")
    desk = ApprovalDesk.from_settings(settings)
    sheet = desk.sheet(held, utc_now())
    if not as_json:
        _print(settings, held)
    signer = confirmed(desk, sheet, key, settings, yes=yes, quiet=as_json)
    signed = desk.signed(held, signer)
    look_again(desk, signed, signer, yes=yes)
    path = f"/deploys/{quote(held.message.rollout, safe='')}/signatures"
    outcome = console.done(ActionOutcome, "POST", path, {"signature": signature_value(signed)})
    if not as_json:
        click.echo(f"signed with key {signer.fingerprint}; {visible(outcome.detail or outcome.state)}")
    return outcome


def read_proposal(console: ConsoleClient, rollout: str) -> ProposalShown:
    """Return a rollout that waits for people.

    Raises:
        ActionRefused: there is none.
    """
    from deploykit.web.actions.shown import ProposalShown

    return console.read(ProposalShown, f"/deploys/{quote(rollout, safe='')}/proposal")


def newest_proposal(console: ConsoleClient) -> str:
    """Return the id of the newest rollout that waits for people.

    Raises:
        UsageError: there is none.
    """
    from deploykit.errors import UsageError
    from deploykit.web.actions.shown import ProposalShown

    for proposal in console.items(ProposalShown, "/proposals"):
        return proposal.rollout
    raise UsageError("no proposal waits at the console", "see `deploykit rollout list`")


def _print(settings: Settings, held: HeldMandate) -> None:
    from deploykit.cli.confirming import print_sheet
    from deploykit.operations.approval import ApprovalDesk

    print_sheet(ApprovalDesk.from_settings(settings), held)


def _print_signed(proposal: ProposalShown) -> None:
    """Print who has signed, as the console says: their signatures are not in the bytes."""
    for each in proposal.signatures:
        why = f"; does not count: {each.problem}" if each.problem else ""
        click.echo(visible(f"signed, as the console says: {each.signer or 'unknown'} {each.fingerprint}{why}"))
    if proposal.missing:
        click.echo(visible(f"missing, as the console says: {proposal.missing}"))


__all__ = ["approve_via", "newest_proposal", "read_proposal", "show_waiting", "sign_via"]
