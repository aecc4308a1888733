"""`deploykit doctor`: check what each broker is, and whether it does what deploykit needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploykit.cli.options import config_option, json_option, load, print_json

if TYPE_CHECKING:
    from deploykit.operations.findings import Finding


@click.command()
@config_option
@json_option
@click.pass_context
def doctor(ctx: click.Context, config: Path | None, as_json: bool) -> None:
    """Check each configured broker and each build gate: one line for each finding, with a way out for each failure.

    Tried for real: name and version, TLS, login, receipts, heart-beats, NACK, a durable subscription. Nothing is left
    behind at the broker. Ends with 1 if something failed.

    \b
    Examples:
      deploykit doctor
      deploykit doctor --config ./deploykit.toml --json
    """
    from deploykit.operations.doctor import examine
    from deploykit.operations.gatecheck import check_gates

    settings, show = load(config), _print_json if as_json else click.echo
    findings = (*examine(settings.broker, show), *check_gates(settings, show))
    ctx.exit(1 if any(finding.failed for finding in findings) else 0)


def _print_json(finding: Finding) -> None:
    ok = True if finding.verdict == "ok" else False if finding.failed else None
    print_json(
        {"broker": finding.broker, "check": finding.check, "ok": ok, "seen": finding.text, "fix": finding.remedy}
    )
