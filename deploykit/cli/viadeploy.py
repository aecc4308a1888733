"""`deploy`, `rollback` and `rollout retry` through a console: it plans and coordinates, a mandate is signed here."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from deploykit.cli.options import print_json
from deploykit.cli.rolloutrun import INTERRUPTED, display_for
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.cli.rolloutdisplay import RolloutDisplay
    from deploykit.fleet.plan import Plan
    from deploykit.operations.keychoice import KeyChoice
    from deploykit.settings.node import Settings
    from deploykit.via.client import ConsoleClient
    from deploykit.web.actions.asked import DeployAsked, RollbackAsked
    from deploykit.web.actions.shown import ActionOutcome, PlanShown

#: Nodes of a plan that are listed; the others are counted.
_LISTED = 40


def begin_via(
    console: ConsoleClient,
    settings: Settings,
    asked: DeployAsked | RollbackAsked,
    given: Mapping[str, Any],
    *,
    as_json: bool,
) -> int:
    """Have a console plan a rollout, show the plan, have it begun or signed, follow it, and return the exit code."""
    from deploykit.web.actions.asked import RollbackAsked
    from deploykit.web.actions.shown import ActionOutcome

    _check_signing(given)
    kind, where = ("rollback", "rollbacks") if isinstance(asked, RollbackAsked) else ("deploy", "deploys")
    site = f"/sites/{quote(asked.site, safe='')}"
    body = {**_body(asked), "approval": _wants_approval(given)}
    plan = _read_plan(console.do("POST", f"{site}/plans", {"kind": kind, **body}).value)
    _check_count(plan, given)
    if given["dry_run"]:
        _print_plan(plan, as_json=as_json, nothing_sent=True)
        return 1 if plan.left_out else 0
    if not as_json:
        _print_plan(plan, as_json=False)
    outcome = console.done(ActionOutcome, "POST", f"{site}/{where}", {**body, "plan": plan.digest})
    code = go_on_via(console, settings, outcome, given, plan=plan, asked=asked, as_json=as_json)
    return code or (1 if plan.left_out else 0)


def retry_via(
    console: ConsoleClient,
    settings: Settings,
    id_: str,
    given: Mapping[str, Any],
    *,
    site: str = "",
    as_json: bool,
) -> int:
    """Have a console retry what a rollout did not reach, and return the exit code.

    Args:
        id_: of the rollout, its beginning, or `last`.
        site: which it must be of, for `deploy --retry-failed`; `ref` and `commit` in `given` likewise.
    """
    from deploykit.cli.viarollout import rollout_named
    from deploykit.web.actions.shown import ActionOutcome

    _check_signing(given)
    path = f"/deploys/{quote(rollout_named(console, id_), safe='')}/retry"
    approval = _wants_approval(given)
    plan = _read_plan(console.get(path, {"approval": "true"} if approval else None).value)
    if site:
        _check_retried(plan, id_, site, given)
    if given["dry_run"]:
        _print_plan(plan, as_json=as_json, nothing_sent=True)
        return 0
    if not as_json:
        _print_plan(plan, as_json=False)
    body = {"plan": plan.digest, "approval": approval, "reason": given["reason"]}
    outcome = console.done(ActionOutcome, "POST", path, body)
    return go_on_via(console, settings, outcome, given, plan=plan, asked=None, as_json=as_json)


def go_on_via(
    console: ConsoleClient,
    settings: Settings,
    outcome: ActionOutcome,
    given: Mapping[str, Any],
    *,
    plan: PlanShown,
    asked: DeployAsked | RollbackAsked | None,
    as_json: bool,
) -> int:
    """Sign what was proposed, where a key is here for that; follow what was started; return the exit code."""
    from deploykit.via.following import plan_of_shown

    for note in (*plan.notes, *plan.warnings, *outcome.notes):
        click.echo(f"deploykit: the console: {visible(note)}", err=True)
    if outcome.state == "proposed":
        keys = _signing_keys(settings, given)
        for key in keys if not given.get("propose") else ():
            outcome = _sign(console, settings, outcome.rollout, key, given, plan=plan, asked=asked, as_json=as_json)
        if outcome.state == "proposed":
            _print_proposed(console, outcome, as_json=as_json)
            return 0
    return follow_via(console, settings, plan_of_shown(plan, outcome.rollout), as_json=as_json)


def follow_via(console: ConsoleClient, settings: Settings, plan: Plan, *, as_json: bool) -> int:
    """Show a rollout until it has ended, and return its exit code. Ctrl-C leaves it: the console goes on with it."""
    from deploykit.fleet.summary import summarize
    from deploykit.via.follower import RolloutFollower

    def answer(goes_on: bool) -> None:
        kind = "promote" if goes_on else "abort"
        console.do("POST", f"/deploys/{quote(plan.rollout, safe='')}/control", {"kind": kind})

    display: RolloutDisplay = display_for(plan, as_json=as_json, answer=answer, through=console.url)
    try:
        with display:
            model = RolloutFollower(console, plan, display).follow()
            display.ended(summarize(plan, model, display.view, skew=settings.trust.skew))
    except KeyboardInterrupt:
        click.echo(f"deploykit: the console goes on with rollout {visible(plan.rollout)}; to see it:", err=True)
        click.echo(f"  deploykit rollout show {visible(plan.rollout)} --via {visible(console.url)}", err=True)
        return INTERRUPTED
    return model.exit_code(plan)


# -- what is asked -----------------------------------------------------------------------------------------------------


def _body(asked: DeployAsked | RollbackAsked) -> dict[str, object]:
    import attrs

    return {name: value for name, value in attrs.asdict(asked).items() if name != "site"}


def _wants_approval(given: Mapping[str, Any]) -> bool:
    """Return whether people sign it although the site may not ask for that: because a key for it is given here."""
    return bool(given.get("propose") or given.get("approve_with") or given["key"].given)


def _signing_keys(settings: Settings, given: Mapping[str, Any]) -> tuple[KeyChoice, ...]:
    """Return the keys that sign a mandate: those of `--approve-with`, else `--key`, else that of the settings."""
    key: KeyChoice = given["key"]
    paths: tuple[Path, ...] = given.get("approve_with") or ()
    if paths:
        return tuple(key.with_path(path) for path in paths)
    asked = key.given or bool(given.get("yes")) or sys.stdin.isatty()  # a script that named no key has nobody to ask
    return (key,) if asked and (key.given or settings.signing_key is not None) else ()


def _check_signing(given: Mapping[str, Any]) -> None:
    from deploykit.errors import UsageError

    if given["propose"] and (given["approve_with"] or given["yes"]):
        raise UsageError("--propose waits for others, --approve-with signs at once", "give one of them")


def _check_retried(plan: PlanShown, id_: str, site: str, given: Mapping[str, Any]) -> None:
    """Accept the plan of a retry of the rollout that `deploy SITE --ref REF --retry-failed ID` means.

    Raises:
        UsageError: it is of another site, ref or commit, or a way back.
    """
    from deploykit.errors import UsageError
    from deploykit.names import RefName, short_ref

    ref, commit = given["ref"], given["commit"]
    if plan.site != site:
        raise UsageError(f"rollout {id_} is of site {plan.site}, not {site}", "nothing was sent")
    if plan.kind != "deploy":
        raise UsageError(f"rollout {id_} is a rollback", f"`deploykit rollout retry {id_}`")
    if ref is not None and ref not in (plan.ref, short_ref(RefName(plan.ref))):
        raise UsageError(f"rollout {id_} is of {short_ref(RefName(plan.ref))}, not {ref}", "leave --ref out")
    if commit not in (None, plan.commit):
        raise UsageError(f"rollout {id_} is of commit {plan.commit}, not {commit}", "leave --commit out")


def _check_count(plan: PlanShown, given: Mapping[str, Any]) -> None:
    from deploykit.errors import UsageError

    expected = given.get("chosen_count")
    if expected is not None and expected != len(plan.nodes):
        raise UsageError(f"--expect {expected}: {len(plan.nodes)} nodes match", "nothing was sent")


# -- signing -----------------------------------------------------------------------------------------------------------


def _sign(
    console: ConsoleClient,
    settings: Settings,
    rollout: str,
    key: KeyChoice,
    given: Mapping[str, Any],
    *,
    plan: PlanShown,
    asked: DeployAsked | RollbackAsked | None,
    as_json: bool,
) -> ActionOutcome:
    """Show the mandate's own bytes, ask, sign them here, and hand the signature over."""
    from deploykit.cli.viaapprove import read_proposal, sign_via
    from deploykit.via.proposing import mandate_of, require_as_asked, require_as_shown

    held = mandate_of(read_proposal(console, rollout), rollout)
    if asked is not None:
        require_as_asked(held, asked, plan)
    else:
        require_as_shown(held, plan)
    return sign_via(console, settings, held, key, yes=bool(given.get("yes")), as_json=as_json)


# -- answers -----------------------------------------------------------------------------------------------------------


def _read_plan(value: object) -> PlanShown:
    from deploykit.via.answers import read_answer
    from deploykit.web.actions.shown import PlanShown

    return read_answer(PlanShown, {**value, "comparison": None} if isinstance(value, dict) else value)


# -- what is printed ---------------------------------------------------------------------------------------------------


def _print_plan(plan: PlanShown, *, as_json: bool, nothing_sent: bool = False) -> None:
    if as_json:
        print_json(_plan_entry(plan))
        return
    for line in plan_shown_lines(plan):
        click.echo(visible(line))
    if nothing_sent:
        click.echo("nothing was sent")


def plan_shown_lines(plan: PlanShown) -> Iterator[str]:
    """Yield the plan that a console made, for a person; each line is to be escaped."""
    from deploykit.names import RefName, short_ref

    def named(ref: str, commit: str) -> str:
        return f"{short_ref(RefName(ref)) if ref else 'nothing'} ({commit[:12] or '?'})" if ref or commit else "?"

    verb = "goes back" if plan.kind == "rollback" else f"gets {named(plan.ref, plan.commit)}"
    yield f"{plan.site} {verb} on {len(plan.nodes)} node{'s' * (len(plan.nodes) != 1)}"
    width = max((len(each.node) for each in plan.nodes), default=0)
    for each in plan.nodes[:_LISTED]:
        stage = "canary" if each.stage == 0 else f"batch {each.stage}"
        why = f"  {each.why}" if each.why else ""
        now = f"{named(each.live_ref, each.live_commit)} -> {named(each.to_ref, each.to_commit)}"
        yield f"  {stage:<9} {each.node:<{width}}  {now}{why}"
        if each.warning:
            yield f"  {'':<9} {'':<{width}}  ! {each.warning}"
    if len(plan.nodes) > _LISTED:
        yield f"  … and {len(plan.nodes) - _LISTED} more nodes"
    for left in plan.left_out[:_LISTED]:
        yield f"  left out: {left.node}: {left.why}"
    if plan.locked:
        yield f"  {plan.site} is {plan.locked.removeprefix(f'{plan.site} is ')}"
    if plan.running:
        yield f"  rollout {plan.running} of it runs now"
    if plan.needs:
        person = " by keys that show that a person touched them" if plan.needs_person else ""
        yield f"  {plan.needs} signature{'s' * (plan.needs != 1)}{person} needed"


def _plan_entry(plan: PlanShown) -> dict[str, object]:
    import attrs

    return {name: value for name, value in attrs.asdict(plan).items() if name != "comparison"}


def _print_proposed(console: ConsoleClient, outcome: ActionOutcome, *, as_json: bool) -> None:
    if as_json:
        print_json({"rollout": outcome.rollout, "site": outcome.site, "state": "proposed", "detail": outcome.detail})
        return
    rollout, url = visible(outcome.rollout), visible(console.url)
    click.echo(f"proposed; nothing was sent{f': {visible(outcome.detail)}' if outcome.detail else ''}")
    click.echo(f"to sign it:     deploykit approve {rollout} --via {url} --key KEY")
    click.echo(f"in a browser:   {url}/deploys/{quote(outcome.rollout, safe='')}/approve")
    click.echo(f"to withdraw it: deploykit rollout abort {rollout} --via {url}")


__all__ = ["begin_via", "follow_via", "go_on_via", "plan_shown_lines", "retry_via"]
