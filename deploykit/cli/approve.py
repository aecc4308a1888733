"""`deploykit approve`: read what a rollout would do, and sign it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploykit.cli.confirming import confirmed, look_again
from deploykit.cli.options import config_option, json_option, load, print_json
from deploykit.cli.signing import key_options
from deploykit.cli.viaoptions import console_for, via_options, via_settings
from deploykit.operations.approvaltext import next_step, sheet_entry, sheet_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploykit.fleet.mandates import HeldMandate
    from deploykit.operations.approval import ApprovalDesk
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
@via_options
@config_option
@json_option
def approve(
    what: str,
    key: KeyChoice,
    files: tuple[Path, ...],
    no_sign: bool,
    output: Path | None,
    yes: bool,
    via: str | None,
    via_token: Path | None,
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
      deploykit approve shop-20260131-1204 --via https://deploy.example.org --key ~/.ssh/deploykit
    """
    from deploykit.errors import UsageError
    from deploykit.messages import utc_now
    from deploykit.operations.approval import ApprovalDesk
    from deploykit.operations.mandatefiles import merged, read_mandate_file, require_canonical, write_mandate_file
    from deploykit.operations.proposals import change_mandate, read_proposal

    in_file = "/" in what or Path(what).is_file()
    given = {"via": via, "via_token": via_token}
    settings = _settings(config, optional=in_file) if via in (None, "-") else via_settings(config, given)
    console = console_for(settings, given) if settings is not None and not in_file else None
    if console is not None and settings is not None:
        if files or output is not None:
            raise UsageError("--add and --output are for files, not for a console", "leave --via out")
        from deploykit.cli.viaapprove import approve_via

        approve_via(console, settings, what, key, no_sign=no_sign, yes=yes, as_json=as_json)
        return
    if in_file:
        path, held, asks = Path(what), read_mandate_file(Path(what)), None
    else:
        path = _proposal_path(settings, what)
        proposal = read_proposal(path)
        held, asks = proposal.mandate, proposal.head.asks
    desk = ApprovalDesk.from_settings(settings).asking(asks)
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
        look_again(desk, result, signer, yes=yes)
    changed = signer is not None or bool(files)
    if output is not None:
        write_mandate_file(output, result)
    elif in_file and changed:
        write_mandate_file(path, result)
    elif changed:  # somebody else may have signed meanwhile
        result = change_mandate(path, lambda current: merged(current, result, "what was shown")).mandate
    _report(desk, result, signer, output or (path if in_file else None), as_json=as_json)


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


__all__ = ["approve"]
