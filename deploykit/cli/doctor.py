"""`deploykit doctor`: what each broker is, and whether it does what we need."""

from __future__ import annotations

from pathlib import Path

import click

from deploykit.cli.options import config_option, json_option, load, print_json


@click.command()
@config_option
@json_option
@click.pass_context
def doctor(ctx: click.Context, config: Path | None, as_json: bool) -> None:
    """Examine each configured broker: one line for each finding, with a way out for each failure.

    Tried for real: name and version, TLS, login, receipts, heart-beats, NACK, a durable subscription. Nothing is left
    behind at the broker. Ends with 1 if something failed.

    \b
    Examples:
      deploykit doctor
      deploykit doctor --config ./deploykit.toml --json
    """
    import attrs

    from deploykit.operations.doctor import BrokerFinding, examine

    def show(finding: BrokerFinding) -> None:
        if as_json:
            print_json(attrs.asdict(finding))
        else:
            click.echo(str(finding))

    findings = examine(load(config).broker, show)
    ctx.exit(1 if any(finding.ok is False for finding in findings) else 0)
