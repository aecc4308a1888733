"""`deploykit rollback`: take nodes back to the release that each of them had before."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import attrs
import click

from deploykit.cli.asking import print_notes
from deploykit.cli.mandateoptions import check_mandate_options, mandate_options, with_mandate
from deploykit.cli.options import config_option, json_option
from deploykit.cli.rolloutnodes import chosen_canaries, chosen_nodes, worse_of
from deploykit.cli.rolloutoptions import options_from, override_from, rollout_options
from deploykit.cli.rolloutrun import answer_for, carry_out, connected, display_for, print_plan
from deploykit.cli.selecting import selection_from, selection_options
from deploykit.cli.signing import key_options
from deploykit.cli.viaoptions import console_for, via_options, via_settings

if TYPE_CHECKING:
    from deploykit.settings.node import Settings


@click.command()
@click.argument("site")
@click.option(
    "--to",
    "to",
    multiple=True,
    metavar="REF",
    help="Go back to this tag or branch instead, the same on all nodes; REPO=REF of a site of several repositories.",
)
@selection_options
@rollout_options
@click.option("--commit", multiple=True, help="With --to: the commit it must stand for (REPO=ID).")
@click.option("--repo", help="With --to: the repository to look it up in.")
@mandate_options
@key_options()
@via_options
@config_option
@json_option
@click.pass_context
def rollback(ctx: click.Context, /, site: str, to: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Take nodes back to the release that was live on each of them before, in one step.

    Nodes are asked what they had, so they may go back to different releases. One that had nothing before is named and
    left alone, and the command ends with 1. Other exit codes as of `deploy`.

    \b
    Examples:
      deploykit rollback shop --all
      deploykit rollback shop -I web1 -I web2
      deploykit rollback shop -C nginx --to v1.1
      deploykit rollback shop --all --to app=v2
      deploykit rollback shop --all --dry-run
      deploykit rollback shop --all --approve-with ~/.ssh/deploykit
      deploykit rollback shop --all --via https://deploy.example.org
    """
    began = time.monotonic()
    settings = via_settings(given["config"], given)
    console = console_for(settings, given)
    if console is not None:
        from deploykit.cli.fleetparts import one_for_console
        from deploykit.cli.viaasked import rollback_asked
        from deploykit.cli.viadeploy import begin_via

        only, given["commit"] = one_for_console(to, given["commit"])
        ctx.exit(begin_via(console, settings, rollback_asked(ctx, site, only, given), given, as_json=as_json))
    with ExitStack() as stack:
        code = _rollback(settings, stack, site, to, began, given, as_json=as_json)
    ctx.exit(code)


def _rollback(
    settings: Settings,
    stack: ExitStack,
    site: str,
    to: tuple[str, ...],
    began: float,
    given: dict[str, Any],
    *,
    as_json: bool,
) -> int:
    from deploykit.cli.fleetparts import asked_for, asks_what_is_live
    from deploykit.errors import NobodyMatches, UsageError
    from deploykit.operations.rollout import left_unfinished, start_rollout
    from deploykit.operations.rolloutplan import plan_rollback, plan_rollback_to

    if not to and (given["commit"] or given["repo"] is not None):
        raise UsageError("--commit and --repo go with --to REF")
    selection, key = selection_from(given), given["key"]
    check_mandate_options(given)
    override = override_from(given)
    wanted = options_from(given)  # before anything is asked of anybody
    if wanted.quorum is not None:
        raise UsageError("--quorum counts nodes that are prepared, and a rollback prepares nothing", "leave it out")
    if wanted.on_failure == "rollback":
        raise UsageError("a rollback is not taken back", "give --on-failure stop or continue")
    ref, commit = asked_for(settings, site, to, given["commit"], given["repo"], option="to") if to else ("", None)
    bus = stack.enter_context(connected(settings, timeout=given["timeout"]))
    asked = {"key": key, "timeout": given["discovery_timeout"]}
    want_live = asks_what_is_live(settings, site, ref)
    chosen = chosen_nodes(settings, bus, selection, site, want_previous=not to, want_live=want_live, **asked)
    if not chosen.nodes:
        raise NobodyMatches("no node has a release to go back to", "name one: --to REF")
    first = chosen_canaries(settings, bus, selection, chosen, site, given["first_select"], **asked)
    options = options_from(given, first_nodes=first)
    if not to:
        planned = plan_rollback(settings, site, chosen.previous, options, key=key)
    else:
        planned = plan_rollback_to(
            settings, site, ref, chosen.nodes, options, commit=commit, repo=given["repo"], live=chosen.states, key=key
        )
    planned = attrs.evolve(planned, override_lock=override, asks=chosen.asks)
    print_notes((*planned.notes, *left_unfinished(settings, planned.plan)))
    if given["dry_run"]:
        print_plan(planned.plan, as_json=as_json)
        return worse_of(chosen)
    approved = with_mandate(planned, given, as_json=as_json)
    if approved is None:
        return worse_of(chosen)
    if given["approve_with"]:
        began = time.monotonic()  # a person may have taken their time
    display = display_for(planned.plan, as_json=as_json, answer=answer_for(settings, planned.plan.rollout))
    code = carry_out(settings, display, lambda observer: start_rollout(approved, bus, observer=observer, begun=began))
    return code or worse_of(chosen)
