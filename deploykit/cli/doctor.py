"""`deploykit doctor`: check what each broker or build server is, and whether it does what deploykit needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploykit.cli.options import config_option, json_option, load, print_json

if TYPE_CHECKING:
    from deploykit.operations.findings import Finding


@click.command()
@config_option
@click.option("--jenkins", is_flag=True, help="Check the build servers and their jobs instead of the brokers.")
@json_option
@click.pass_context
def doctor(ctx: click.Context, config: Path | None, jenkins: bool, as_json: bool) -> None:
    """Check brokers, build gates and sources of facts: one line for each finding, with a way out for each failure.

    Tried for real: name and version, TLS, login, receipts, heart-beats, NACK, a durable subscription, and each further
    login of [keepalive]. Nothing is left behind at the broker. Ends with 1 if something failed.

    With --jenkins each build server: that it answers and accepts our login; and each job: that we see it, that it can
    be built, and which of our parameters it does not define, because Jenkins drops those. No build is started.

    \b
    Examples:
      deploykit doctor
      deploykit doctor --jenkins
      deploykit doctor --config ./deploykit.toml --json
    """
    settings, show = load(config), _print_json if as_json else click.echo
    if jenkins:
        from deploykit.operations.buildcheck import examine_builds

        checks = examine_builds(settings.jenkins, _print_build_json if as_json else click.echo)
        ctx.exit(1 if any(check.failed for check in checks) else 0)
    from deploykit.operations.doctor import examine
    from deploykit.operations.factcheck import check_facts
    from deploykit.operations.gatecheck import check_gates
    from deploykit.operations.keepalivecheck import check_keepalive_logins

    findings = (
        *examine(settings.broker, show),
        *check_keepalive_logins(settings, show),
        *check_gates(settings, show),
        *check_facts(settings, show),
    )
    ctx.exit(1 if any(finding.failed for finding in findings) else 0)


def _print_json(finding: Finding) -> None:
    print_json({"broker": finding.broker, **_as_json(finding)})


def _print_build_json(finding: Finding) -> None:
    print_json({"server": finding.broker, **_as_json(finding)})


def _as_json(finding: Finding) -> dict[str, object]:
    ok = True if finding.verdict == "ok" else False if finding.failed else None
    return {"check": finding.check, "ok": ok, "seen": finding.text, "fix": finding.remedy}
