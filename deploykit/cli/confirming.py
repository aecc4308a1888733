"""What a person sees of a mandate, and is asked, before a key of theirs signs it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from deploykit.operations.approvaltext import sheet_lines

if TYPE_CHECKING:
    from deploykit.fleet.mandates import HeldMandate
    from deploykit.operations.approval import ApprovalDesk, ApprovalSheet
    from deploykit.operations.keychoice import KeyChoice
    from deploykit.settings.node import Settings
    from deploykit.trust.signature import BodySigner


def confirmed(
    desk: ApprovalDesk,
    sheet: ApprovalSheet,
    key: KeyChoice,
    settings: Settings | None,
    *,
    yes: bool,
    quiet: bool = False,
) -> BodySigner:
    """Return the key that a person wants to sign with, after they were warned and asked.

    Args:
        desk: judges the key.
        sheet: what was shown.
        key: the chosen one.
        settings: of this machine; None where there are none.
        yes: there is no question; then a key that would count for nothing is refused.
        quiet: warnings are not printed: a script reads them.

    Raises:
        PolicyRefused: the time of the mandate is over, or, with `yes`, the key would count for nothing.
        UsageError: there is nobody to ask.
    """
    from deploykit.cli.asking import print_notes
    from deploykit.errors import PolicyRefused, UsageError
    from deploykit.messages import utc_now
    from deploykit.names import NodeName
    from deploykit.settings.node import Settings as AnySettings

    now, message = utc_now(), sheet.held.message
    if now > message.not_after:
        raise PolicyRefused(f"the mandate of rollout {message.rollout} is over", "have it proposed again")
    signer = key.load(settings or AnySettings(node=NodeName("nobody")))
    notes = desk.notes_on_key(sheet, signer, now)
    if any(each.key == signer.public_blob for each in sheet.signatures):
        notes = (*notes, f"key {signer.fingerprint} has signed it already: a further signature replaces that one")
    if notes and not quiet:
        print_notes(notes)
    if yes:
        if notes and desk.knows_signers:
            raise PolicyRefused(notes[0], "nothing was signed; without --yes you are asked")
        return signer
    if not sys.stdin.isatty():
        raise UsageError("there is nobody to ask", "give --yes")
    _ask(f"Sign exactly this with key {signer.fingerprint}?", "nothing was signed")
    return signer


def _ask(question: str, otherwise: str) -> None:
    """Go on after a yes; after a no, say what that means and end with 1."""
    if not click.confirm(question, err=True):
        click.echo(f"deploykit: {otherwise}", err=True)
        raise click.exceptions.Exit(1)


def look_again(desk: ApprovalDesk, result: HeldMandate, signer: BodySigner, *, yes: bool) -> None:
    """Accept the signature that was made; ask where it turned out to be worth nothing, in what it shows of the person.

    Raises:
        PolicyRefused: it is worth nothing, and with `yes` there is no question.
    """
    from deploykit.cli.asking import print_notes
    from deploykit.errors import PolicyRefused
    from deploykit.messages import utc_now

    (made,) = [each for each in desk.sheet(result, utc_now()).signatures if each.key == signer.public_blob]
    if not made.problem or not desk.knows_signers:
        return
    text = f"the signature by key {made.fingerprint} does not count: {made.problem}"
    if yes:
        raise PolicyRefused(text, "nothing was written; without --yes you are asked")
    print_notes([text])
    _ask("Write it all the same?", "nothing was written")


def print_sheet(desk: ApprovalDesk, held: HeldMandate) -> ApprovalSheet:
    """Print a mandate, and return what was shown."""
    from deploykit.messages import utc_now

    now = utc_now()
    sheet = desk.sheet(held, now)
    for line in sheet_lines(sheet, now):
        click.echo(line)
    return sheet


__all__ = ["confirmed", "look_again", "print_sheet"]
