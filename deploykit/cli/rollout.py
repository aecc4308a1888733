"""`deploykit rollout`: the rollouts that were begun on this machine, and what is asked of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from deploykit.cli.asking import print_notes, print_table
from deploykit.cli.mandateoptions import check_mandate_options, mandate_options, with_mandate
from deploykit.cli.options import config_option, json_option, print_json
from deploykit.cli.rolloutnodes import plan_again
from deploykit.cli.rolloutrun import answer_for, carry_out, connected, display_for, print_plan
from deploykit.cli.rolloutshow import LIST_HEAD, list_rows, listed_entry, show_lines, shown_entry
from deploykit.cli.rolloutstart import proposal_named, show_proposal, start, withdraw_proposal
from deploykit.cli.signing import key_options
from deploykit.cli.viaoptions import console_for, refuse_with_via, via_options, via_settings

if TYPE_CHECKING:
    from deploykit.fleet.controls import ControlKind
    from deploykit.fleet.plan import Plan
    from deploykit.operations.keychoice import KeyChoice
    from deploykit.settings.node import Settings

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def rollout() -> None:
    """Look at rollouts that were begun on this machine, and pause, continue or end them.

    ID is a rollout's id, a beginning of it that no other one has, or `last`: the newest that was begun, or, where
    none was, the newest that is proposed.

    \b
    Examples:
      deploykit rollout list
      deploykit rollout show last
      deploykit rollout abort shop-20260131-1204 --rollback
    """


rollout.add_command(start)


@rollout.command("list")
@click.option("-n", "--limit", default=20, show_default=True, type=click.IntRange(1), help="At most so many.")
@via_options
@config_option
@json_option
def list_(config: Path | None, limit: int, as_json: bool, **given: Any) -> None:
    """List rollouts, the newest first.

    \b
    Example:
      deploykit rollout list -n 5
    """
    from deploykit.messages import utc_now
    from deploykit.operations.rolloutstore import list_rollouts

    settings = via_settings(config, given)
    console = console_for(settings, given)
    if console is not None:
        from deploykit.cli.viarollout import list_via

        list_via(console, limit, as_json=as_json)
        return
    found = list_rollouts(settings)[:limit]
    if as_json:
        print_json([listed_entry(each) for each in found])
        return
    if not found:
        click.echo("no rollout was begun on this machine", err=True)
    else:
        print_table(LIST_HEAD, list_rows(found, utc_now()))


@rollout.command("show", short_help="Show a rollout, node by node.")
@click.argument("id_", metavar="[ID]", default="last")
@click.option("--list", "state", metavar="STATE", help="Only the names of nodes in this state, one a line.")
@via_options
@config_option
@json_option
@click.pass_context
def show(ctx: click.Context, /, config: Path | None, id_: str, state: str | None, as_json: bool, **given: Any) -> None:
    """Show a rollout node by node, as its journal has it. Ends with the rollout's own exit code, 0 while it runs, 1
    where nobody goes on with it.

    \b
    Examples:
      deploykit rollout show last
      deploykit rollout show last --list failed
    """
    from deploykit.operations.rolloutstore import read_rollout

    settings = via_settings(config, given)
    console = console_for(settings, given)
    if console is not None:
        from deploykit.cli.viarollout import show_via

        ctx.exit(show_via(console, settings, id_, state, as_json=as_json))
    proposal = proposal_named(settings, id_)
    if proposal is not None:
        show_proposal(settings, proposal, as_json=as_json)
        return
    stored = read_rollout(settings, id_)
    if state is not None:
        for node, status in stored.model.nodes.items():
            if status.state == state:
                click.echo(node)
        return
    if as_json:
        print_json(shown_entry(stored))
    else:
        for line in show_lines(stored):
            click.echo(line)
    ctx.exit(stored.exit_code)


@rollout.command("pause", short_help="Let a rollout wait before its next batch.")
@click.argument("id_", metavar="ID")
@via_options
@config_option
def pause(config: Path | None, id_: str, **given: Any) -> None:
    """Let a rollout wait at the next boundary between two batches. Nodes at work finish.

    \b
    Example:
      deploykit rollout pause last
    """
    from deploykit.operations.rolloutstore import ask_rollout

    settings = via_settings(config, given)
    if _asked_via(settings, id_, "pause", given):
        return
    stored = ask_rollout(settings, id_, "pause")
    click.echo(f"{stored.plan.rollout} will wait before its next batch")
    if not stored.running:
        click.echo(f"deploykit: nobody coordinates it now: `deploykit rollout resume {stored.plan.rollout}`", err=True)


@rollout.command("resume", short_help="End a pause, or go on with a rollout whose coordinator is gone.")
@click.argument("id_", metavar="ID|JOURNAL")
@key_options()
@via_options
@config_option
@json_option
@click.pass_context
def resume(ctx: click.Context, /, config: Path | None, id_: str, key: KeyChoice, as_json: bool, **given: Any) -> None:
    """End a pause; or go on with a rollout whose coordinator is gone, here, from its journal.

    The journal may come from another machine: give the path of its file. Nodes that are done answer again and do
    nothing twice.

    \b
    Examples:
      deploykit rollout resume last
      deploykit rollout resume ./shop-20260131-120400-1f2e/journal.jsonl
    """
    settings = via_settings(config, given)
    if not _asked_via(settings, id_, "resume", given, as_json=as_json):
        ctx.exit(_go_on(settings, id_, "resume", key=key, as_json=as_json))


@rollout.command("promote", short_help="Go on now: end a pause, or a bake.")
@click.argument("id_", metavar="ID")
@key_options()
@via_options
@config_option
@json_option
@click.pass_context
def promote(ctx: click.Context, /, config: Path | None, id_: str, key: KeyChoice, as_json: bool, **given: Any) -> None:
    """Go on now: a pause ends, and a batch that is being watched (`--bake`) counts as good.

    \b
    Example:
      deploykit rollout promote last
    """
    settings = via_settings(config, given)
    if not _asked_via(settings, id_, "promote", given, as_json=as_json):
        ctx.exit(_go_on(settings, id_, "promote", key=key, as_json=as_json))


@rollout.command("abort", short_help="End a rollout; --rollback takes back what was activated.")
@click.argument("id_", metavar="ID")
@click.option("--rollback", is_flag=True, help="Take back what was activated, newest first, without pauses.")
@key_options()
@via_options
@config_option
@json_option
@click.pass_context
def abort(
    ctx: click.Context, /, config: Path | None, id_: str, rollback: bool, key: KeyChoice, as_json: bool, **given: Any
) -> None:
    """End a rollout: no further node is asked, and what was only prepared is discarded. Ends with 0 when it was
    asked to, or, where nobody coordinates it, when it has ended so. One that only was proposed is withdrawn.

    \b
    Examples:
      deploykit rollout abort last
      deploykit rollout abort last --rollback
    """
    settings = via_settings(config, given)
    if _asked_via(settings, id_, "abort", given, rollback=rollback, as_json=as_json):
        return
    proposal = proposal_named(settings, id_)
    if proposal is not None:
        withdraw_proposal(proposal, as_json=as_json)
        return
    ctx.exit(_go_on(settings, id_, "abort", key=key, as_json=as_json, rollback=rollback))


@rollout.command("retry", short_help="Roll out again to what failed or was silent.")
@click.argument("id_", metavar="ID")
@click.option("--dry-run", is_flag=True, help="Print the plan; send no command.")
@mandate_options
@key_options()
@via_options
@config_option
@json_option
@click.pass_context
def retry(
    ctx: click.Context, /, config: Path | None, id_: str, dry_run: bool, key: KeyChoice, as_json: bool, **given: Any
) -> None:
    """Begin a new rollout of what failed, refused or was silent in one that has ended. It is another rollout: where
    the earlier one needed a mandate, this one needs one of its own.

    \b
    Examples:
      deploykit rollout retry last
      deploykit rollout retry last --propose
    """
    from deploykit.operations.rollout import start_rollout

    settings = via_settings(config, given)
    console = console_for(settings, given)
    if console is None:
        check_mandate_options(given)
    else:
        from deploykit.cli.viadeploy import retry_via

        times = dict.fromkeys(("not_before", "not_after"), "leave it out: the usual time counts")
        refuse_with_via(ctx, times)
        ctx.exit(retry_via(console, settings, id_, {**given, "key": key, "dry_run": dry_run}, as_json=as_json))
    plan = plan_again(ctx, settings, id_, {"key": key})
    print_notes(plan.notes)
    if dry_run:
        print_plan(plan.plan, as_json=as_json)
        return
    planned = with_mandate(plan, {**given, "key": key}, as_json=as_json)
    if planned is None:
        return
    with connected(settings) as bus:
        display = display_for(planned.plan, as_json=as_json, answer=answer_for(settings, planned.plan.rollout))
        code = carry_out(settings, display, lambda observer: start_rollout(planned, bus, observer=observer))
    ctx.exit(code)


def _asked_via(
    settings: Settings,
    id_: str,
    kind: ControlKind,
    given: dict[str, Any],
    *,
    rollback: bool = False,
    as_json: bool = False,
) -> bool:
    """Return whether a rollout was asked something through a console: whether one is named."""
    console = console_for(settings, given)
    if console is None:
        return False
    from deploykit.cli.viarollout import control_via

    control_via(console, id_, kind, rollback=rollback, as_json=as_json)
    return True


def _go_on(
    settings: Settings, where: str, then: ControlKind, *, key: KeyChoice, as_json: bool, rollback: bool = False
) -> int:
    """Ask a rollout that is coordinated to do something; coordinate one that is not. Return the exit code."""
    from deploykit.operations.rollout import read_resumable, resume_rollout
    from deploykit.operations.rolloutstore import ask_rollout, read_rollout

    plan = _journal_plan(where)
    if plan is None:
        stored = read_rollout(settings, where)
        plan = stored.plan
        if stored.running:
            ask_rollout(settings, plan.rollout, then, rollback=rollback)
            if as_json:
                print_json({"rollout": plan.rollout, "asked": then})
            else:
                back = " and to roll back" if rollback else ""
                click.echo(f"asked {plan.rollout} to {then}{back}; see `deploykit rollout show`")
            return 0
        directory, aborting = settings.rollouts_directory, then == "abort"
        read_resumable(directory, stored.path, aborting=aborting, rollback=rollback)  # before we connect
        where = plan.rollout
    key.load(settings)  # a person may be asked for its passphrase: before the display
    with connected(settings) as bus:
        display = display_for(plan, as_json=as_json, answer=answer_for(settings, plan.rollout))
        code = carry_out(
            settings,
            display,
            lambda observer: resume_rollout(
                settings, bus, where, key=key, observer=observer, then=then, rollback=rollback
            ),
        )
    model = display.view.model
    ended_as_asked = then == "abort" and model is not None and model.state in ("aborted", "rolled-back")
    return 0 if ended_as_asked else code


def _journal_plan(where: str) -> Plan | None:
    """Return the plan of a journal that is named by its path; None for an id."""
    from deploykit.fleet.journal import NAME, read_journal

    path = Path(where)
    if "/" not in where and not path.is_file():
        return None
    return read_journal(path / NAME if path.is_dir() else path).head.plan
