"""`deploykit deploy`: put a tag live on nodes, canary first."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from deploykit.cli.asking import print_notes
from deploykit.cli.mandateoptions import check_mandate_options, mandate_options, with_mandate
from deploykit.cli.options import config_option, json_option
from deploykit.cli.rolloutnodes import chosen_canaries, chosen_nodes, worse_of
from deploykit.cli.rolloutoptions import any_given, options_from, override_from, rollout_options
from deploykit.cli.rolloutrun import answer_for, carry_out, connected, display_for, print_plan
from deploykit.cli.selecting import selection_options
from deploykit.cli.signing import key_options
from deploykit.cli.viaoptions import console_for, via_options, via_settings

if TYPE_CHECKING:
    from deploykit.operations.rolloutplan import PlannedRollout
    from deploykit.settings.node import Settings


@click.command()
@click.argument("site")
@click.option(
    "--ref",
    multiple=True,
    help="The tag or branch to put live, e.g. v1.2 or refs/heads/main. Of several repositories REPO=REF for each that "
    "changes; the others stay as they are live.",
)
@selection_options
@rollout_options
@click.option(
    "--retry-failed", metavar="ID", help="Instead of choosing nodes: those that failed, refused or were silent."
)
@click.option(
    "--commit", multiple=True, help="The commit it must stand for (REPO=ID); looked up at the origin when absent."
)
@click.option("--repo", help="The repository to look it up in; needed when the settings name several.")
@mandate_options
@key_options()
@click.option(
    "--evidence",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    metavar="FILE|DIR",
    help="Send these build results along (from `builds export`), beside those known here.",
)
@click.option("--without-build", is_flag=True, help="Although no build succeeded; the node must grant you just that.")
@via_options
@config_option
@json_option
@click.pass_context
def deploy(ctx: click.Context, /, site: str, ref: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Put a tag live on nodes, the canary first, and show it while it happens.

    The origin is asked once which commit the ref names; every node gets that commit. Ends with 0 when all nodes have
    it, 1 when some failed or stayed silent, 3 when every node refused. Ctrl-C leaves the rollout: it says how to go on.

    \b
    Examples:
      deploykit deploy shop --ref v1.2 --node web1
      deploykit deploy shop --ref v1.2 -C nginx -F env=live --first 1 --batch 10% --max-failures 2
      deploykit deploy shop --ref v1.2 --nodes web.txt --pause ask --on-failure rollback
      deploykit deploy shop --ref v1.2 --all --dry-run
      deploykit deploy shop --ref app=v3 --ref theme=v7 --all
      deploykit deploy shop --ref v1.2 --all --propose --reason "the fix for carts"
      deploykit deploy shop --ref v1.2 --all --via https://deploy.example.org --approve-with ~/.ssh/deploykit
    """
    began = time.monotonic()
    settings = via_settings(given["config"], given)
    console = console_for(settings, given)
    if console is not None:
        from deploykit.cli.fleetparts import one_for_console
        from deploykit.cli.viaasked import deploy_asked, refuse_beside_retry
        from deploykit.cli.viadeploy import begin_via, retry_via

        only, given["commit"] = one_for_console(ref, given["commit"])
        if given["retry_failed"] is not None:
            refuse_beside_retry(ctx)
            named = {**given, "ref": only}
            ctx.exit(retry_via(console, settings, given["retry_failed"], named, site=site, as_json=as_json))
        if only is None:
            raise click.UsageError("Missing option '--ref'.", ctx)
        ctx.exit(begin_via(console, settings, deploy_asked(ctx, site, only, given), given, as_json=as_json))
    with ExitStack() as stack:
        code = _deploy(ctx, settings, stack, site, ref, began, given, as_json=as_json)
    ctx.exit(code)


def _deploy(
    ctx: click.Context,
    settings: Settings,
    stack: ExitStack,
    site: str,
    refs: tuple[str, ...],
    began: float,
    given: dict[str, Any],
    *,
    as_json: bool,
) -> int:
    from deploykit.operations.rollout import left_unfinished, start_rollout

    check_mandate_options(given)
    override = override_from(given)
    timeout = given["timeout"]
    incomplete = 0
    bus = None
    if given["retry_failed"] is not None:
        planned = _retry(ctx, settings, site, refs, given)
    else:
        if not refs:
            raise click.UsageError("Missing option '--ref'.", ctx)
        from deploykit.cli.fleetparts import asked_for, asks_what_is_live
        from deploykit.cli.selecting import selection_from
        from deploykit.operations.rolloutplan import plan_deploy

        selection = selection_from(given)
        options_from(given)  # before anything is asked of anybody
        ref, commit = asked_for(settings, site, refs, given["commit"], given["repo"])
        want_live = asks_what_is_live(settings, site, ref)
        if selection.needs_discovery or want_live or given["first_select"] is not None:
            bus = stack.enter_context(connected(settings))
        asked = {"key": given["key"], "timeout": given["discovery_timeout"]}
        chosen = chosen_nodes(settings, bus, selection, site, want_live=want_live, **asked)
        first = chosen_canaries(settings, bus, selection, chosen, site, given["first_select"], **asked)
        incomplete = worse_of(chosen)
        planned = plan_deploy(
            settings,
            site,
            ref,
            chosen.nodes,
            options_from(given, first_nodes=first),
            commit=commit,
            repo=given["repo"],
            live=chosen.states,
            key=given["key"],
            evidence=given["evidence"],
            without_build=given["without_build"],
        )
        planned = attrs.evolve(planned, asks=chosen.asks)
    planned = attrs.evolve(planned, override_lock=override)
    print_notes((*planned.notes, *left_unfinished(settings, planned.plan)))
    if given["dry_run"]:
        print_plan(planned.plan, as_json=as_json)
        return incomplete
    approved = with_mandate(planned, given, as_json=as_json)
    if approved is None:
        return incomplete
    if given["approve_with"]:
        began = time.monotonic()  # a person may have taken their time
    if bus is None:
        limit = max(0.1, timeout - (time.monotonic() - began)) if len(planned.plan.nodes) == 1 else None
        bus = stack.enter_context(connected(settings, timeout=limit))
    connection = bus
    rollout = planned.plan.rollout
    display = display_for(planned.plan, as_json=as_json, answer=answer_for(settings, rollout))
    code = carry_out(
        settings, display, lambda observer: start_rollout(approved, connection, observer=observer, begun=began)
    )
    return code or incomplete


def _retry(
    ctx: click.Context, settings: Settings, site: str, refs: tuple[str, ...], given: dict[str, Any]
) -> PlannedRollout:
    """Return the plan of `--retry-failed`."""
    from deploykit.cli.fleetparts import check_repeats
    from deploykit.cli.rolloutnodes import plan_again
    from deploykit.errors import UsageError
    from deploykit.operations.rolloutstore import read_rollout

    if any_given(ctx, "chosen_"):
        raise UsageError("--retry-failed chooses the nodes itself", "leave out what chooses nodes")
    if given["first_select"] is not None:
        raise UsageError("--retry-failed asks no node what it is: --first-select cannot be used", "give --first N")
    if given["repo"] is not None:
        raise UsageError("--retry-failed asks no repository: the commit is that of the rollout", "leave --repo out")
    stored = read_rollout(settings, given["retry_failed"])
    plan = stored.plan
    if plan.site != site:
        raise UsageError(f"rollout {plan.rollout} is of site {plan.site}, not {site}")
    check_repeats(plan, refs, given["commit"])
    if plan.kind != "deploy":
        raise UsageError(f"rollout {plan.rollout} is a rollback", f"`deploykit rollout retry {plan.rollout}`")
    return plan_again(ctx, settings, plan.rollout, given)
