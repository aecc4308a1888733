"""`deploykit deploy`: ask a node to put a tag live."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploykit.cli.options import Seconds, config_option, json_option, load, print_json
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.fleet import Answer
    from deploykit.messages import DeployReported, DeployRequested


@click.command()
@click.argument("site")
@click.option("--ref", required=True, help="The tag or branch to put live, e.g. v1.2 or refs/heads/main.")
@click.option("--node", required=True, help="The node that is to deploy.")
@click.option("--commit", help="The commit it must stand for; looked up at the origin when absent.")
@click.option("--repo", help="The repository to look it up in; needed when the settings name several.")
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), help="Sign with this key instead.")
@click.option(
    "--evidence",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    metavar="FILE|DIR",
    help="Send these build results along (from `builds export`), beside those known here.",
)
@click.option("--without-build", is_flag=True, help="Although no build succeeded; the node must grant you just that.")
@click.option("--timeout", default=300.0, show_default=True, type=Seconds(1), help="Seconds to wait.")
@config_option
@json_option
@click.pass_context
def deploy(
    ctx: click.Context,
    site: str,
    ref: str,
    node: str,
    commit: str | None,
    repo: str | None,
    key: Path | None,
    evidence: tuple[Path, ...],
    without_build: bool,
    timeout: float,
    config: Path | None,
    as_json: bool,
) -> None:
    """Ask a node to put a tag live, and wait for its report.

    Ends with 0 when the node reports success, 1 when it failed or stayed silent, 3 when it refused.

    \b
    Example:
      deploykit deploy shop --ref v1.2 --node web1
      deploykit deploy shop --ref v1.2 --node web1 --evidence results.jsonl
    """
    from deploykit.cli import print_error
    from deploykit.operations import deploy as operation

    settings = load(config)
    command = operation.prepare(
        settings,
        site,
        ref,
        node=node,
        timeout=timeout,
        commit=commit,
        repo=repo,
        key=key,
        evidence=evidence,
        without_build=without_build,
    )
    for note in command.notes:
        print_error(note)
    with operation.connected_bus(settings) as bus:
        try:
            answer = command.ask(bus, timeout=timeout)
        except KeyboardInterrupt:
            print_error(f"{node} goes on with the deploy; `deploykit watch` shows its report")
            raise
    code = operation.exit_code(answer)
    _print_answer(command.request, answer, as_json=as_json, failed=code != 0)
    ctx.exit(code)


def _print_answer(request: DeployRequested, answer: Answer, *, as_json: bool, failed: bool) -> None:
    import attrs

    report = answer.report
    if as_json:
        print_json(
            {
                "request": request.id,
                "node": answer.node,
                "outcome": report.outcome if report else "no answer",
                "report": attrs.asdict(report) if report else None,
                "doubts": list(answer.doubts),
            }
        )
        return
    for step in report.steps if report else ():
        click.echo(f"  {step.outcome:>7}  {step.name} ({step.seconds:.2f} s)")
        for line in step.output.splitlines():
            click.echo(f"           {visible(line)}")
    for line in _twins(report) if report else ():
        click.echo(f"deploykit: {visible(line)}", err=True)
    for doubt in answer.doubts:
        click.echo(f"deploykit: a report was not believed: {visible(doubt)}", err=True)
    if report is None:
        click.echo(
            f"deploykit: {answer.node} did not answer in time (is its agent running, is its name right?)", err=True
        )
    else:
        click.echo(visible(report.summary), err=failed)


def _twins(report: DeployReported) -> list[str]:
    """Return lines about the agents that answer under the node's name; none where there is only one."""
    if not report.twins:
        return []
    reporting = f"{report.instance} on {report.host}"
    return [
        f"node {report.node}: {len(report.twins) + 1} agents answer under this name, and this one reports: {reporting}",
        *(f"node {report.node}: another agent: {twin}; its sites may differ" for twin in report.twins),
    ]
