"""`deploykit approve`: read what a rollout would do, and sign it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploykit.cli.options import config_option, json_option, load, print_json
from deploykit.cli.signing import key_options
from deploykit.operations.approvaltext import next_step, sheet_entry, sheet_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploykit.fleet.mandates import HeldMandate
    from deploykit.operations.approval import ApprovalDesk, ApprovalSheet
    from deploykit.operations.keychoice import KeyChoice
    from deploykit.settings.node import Settings
    from deploykit.trust.signature import BodySigner

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("what", metavar="ID|FILE")
@key_options(help="Sign with this key; KEY.pub: an ssh-agent holds it.  [default: signing_key of the settings]")
@click.option("--add", "files", multiple=True, type=_FILE, help="Take over the signatures in this file; repeat.")
@click.option("--no-sign", is_flag=True, help="Only show it, take over --add, and write --output.")
@click.option("--output", type=_FILE, help="Write the result to this file, and leave ID or FILE as it is.")
@click.option("-y", "--yes", is_flag=True, help="Sign without a question, for scripts.")
@config_option
@json_option
def approve(
    what: str,
    key: KeyChoice,
    files: tuple[Path, ...],
    no_sign: bool,
    output: Path | None,
    yes: bool,
    config: Path | None,
    as_json: bool,
) -> None:
    """Show what a rollout may do, decoded from the very bytes that are signed; ask; add a signature.

    ID is a rollout that was proposed on this machine (`deploy --propose`), or `last`. FILE carries one to another
    machine: --output writes it, --add takes the signatures back.

    \b
    Examples:
      deploykit approve shop-20260131-1204 --key ~/.ssh/deploykit
      deploykit approve last --no-sign --output shop.mandate
      deploykit approve shop.mandate --key ~/.ssh/id_ed25519_sk.pub
      deploykit approve last --add ann.mandate --add bob.mandate --no-sign
    """
    from deploykit.messages import utc_now
    from deploykit.operations.approval import ApprovalDesk
    from deploykit.operations.mandatefiles import merged, read_mandate_file, require_canonical, write_mandate_file
    from deploykit.operations.proposals import change_mandate, read_proposal

    in_file = "/" in what or Path(what).is_file()
    settings = _settings(config, optional=in_file)
    if in_file:
        path, held = Path(what), read_mandate_file(Path(what))
    else:
        path = _proposal_path(settings, what)
        held = read_proposal(path).mandate
    desk = ApprovalDesk.from_settings(settings)
    for file in files:
        held = merged(held, desk.fitting(read_mandate_file(file)), str(file))
    now = utc_now()
    sheet = desk.sheet(held, now)
    if not as_json:
        for line in sheet_lines(sheet, now):
            click.echo(line)
    signer = None
    if not no_sign:
        require_canonical(held)
        signer = confirmed(desk, sheet, key, settings, yes=yes, quiet=as_json)
    result = desk.signed(held, signer) if signer is not None else held
    if signer is not None:
        _look_again(desk, result, signer, yes=yes)
    changed = signer is not None or bool(files)
    if output is not None:
        write_mandate_file(output, result)
    elif in_file and changed:
        write_mandate_file(path, result)
    elif changed:  # somebody else may have signed meanwhile
        result = change_mandate(path, lambda current: merged(current, result, "what was shown")).mandate
    _report(desk, result, signer, output or (path if in_file else None), as_json=as_json)


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


def _look_again(desk: ApprovalDesk, result: HeldMandate, signer: BodySigner, *, yes: bool) -> None:
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


def _settings(config: Path | None, *, optional: bool) -> Settings | None:
    """Return the settings; None where a file is signed on a machine that has none."""
    from deploykit.config.files import main_path

    if optional and config is None and not main_path(None, os.environ).exists():
        return None
    return load(config)


def _proposal_path(settings: Settings | None, what: str) -> Path:
    from deploykit.errors import UsageError
    from deploykit.operations.proposals import find_proposal

    if settings is None:
        raise UsageError("there are no settings", "give --config FILE")
    directory = settings.rollouts_directory
    path = find_proposal(directory, what)
    if path is None:
        raise UsageError(
            f"there is no file {what[:80]!a}, and no proposal of that name in {directory}",
            "see `deploykit rollout list`",
        )
    return path


def _report(
    desk: ApprovalDesk, held: HeldMandate, signer: BodySigner | None, file: Path | None, *, as_json: bool
) -> None:
    from deploykit.messages import utc_now

    sheet = desk.sheet(held, utc_now())
    if as_json:
        print_json({**sheet_entry(sheet), "signed_by": signer.fingerprint if signer is not None else None})
        return
    click.echo("")
    if signer is not None:
        click.echo(f"signed with key {signer.fingerprint}; {_signatures(sheet.signatures)}")
    else:
        click.echo(f"nothing was signed; {_signatures(sheet.signatures)}")
    if sheet.missing:
        click.echo(f"still missing: {sheet.missing}")
    click.echo(next_step(held, file=str(file) if file is not None else ""))


def _signatures(signatures: Sequence[object]) -> str:
    return "it has 1 signature" if len(signatures) == 1 else f"it has {len(signatures)} signatures"


__all__ = ["approve", "confirmed", "print_sheet"]
