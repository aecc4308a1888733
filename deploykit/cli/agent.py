"""`deploykit agent`: the node's daemon."""

from __future__ import annotations

from pathlib import Path

import click

from deploykit.cli.options import Seconds, config_option, json_option, load, print_json


@click.command()
@config_option
@click.option("--once", is_flag=True, help="Bring the node up to date and end; with 1 if something failed.")
@click.option(
    "--deadline",
    default=300.0,
    show_default=True,
    type=Seconds(0),
    help="With --once: seconds for origins and broker.",
)
@click.option("--forget", is_flag=True, help="Drop this node's durable subscriptions at the broker, and end.")
@json_option
@click.pass_context
def agent(ctx: click.Context, config: Path | None, once: bool, deadline: float, forget: bool, as_json: bool) -> None:
    """Run the node's daemon: update mirrors, make releases, report. TERM ends it, HUP reads the settings again.

    With --once it finishes interrupted deploys, compares every mirror with its origin, sends what the outbox holds, and
    ends. It obeys no deploy command then: those wait at the broker for the daemon.

    \b
    Examples:
      deploykit agent --config /etc/deploykit/deploykit.toml
      deploykit agent --once
    """
    from deploykit.cli import print_error
    from deploykit.daemons.agent import agent as daemon

    if once:
        from deploykit.daemons.agent import once as run

        report = run.once(load(config), deadline)
        if as_json:
            print_json({"mirrors": report.mirrors, "sent": report.sent, "problems": list(report.problems)})
        else:
            click.echo(f"mirrors compared: {report.mirrors}, messages sent: {report.sent}")
            for problem in report.problems:
                print_error(problem)
        ctx.exit(1 if report.problems else 0)
    if forget:
        daemon.forget(load(config))
        return
    daemon.run(lambda: load(config), on_ready=lambda name: click.echo(f"ready: {name}"))
