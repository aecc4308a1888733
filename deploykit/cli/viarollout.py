"""`rollout` through a console: list, show, and what is asked of a rollout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import click

from deploykit.cli.asking import print_table
from deploykit.cli.options import print_json
from deploykit.cli.rollouttext import counts_words, state_words
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.settings.node import Settings
    from deploykit.via.answers import FollowedRollout
    from deploykit.via.client import ConsoleClient
    from deploykit.web.actions.shown import ProposalShown

#: Rollouts among which the beginning of an id is looked for.
_LOOKED_THROUGH: Final = 500
_HEAD = ("rollout", "kind", "what", "state", "nodes", "begun")


def list_via(console: ConsoleClient, limit: int, *, as_json: bool) -> None:
    """Print the rollouts that a console knows, those that wait for people first."""
    from deploykit.builds.gate import ago
    from deploykit.messages import utc_now
    from deploykit.via.answers import FollowedRollout, items_of, read_answer

    values = items_of(console.get("/deploys", {"limit": str(min(limit, 500))}).value)
    found = [read_answer(FollowedRollout, value) for value in values]
    waiting = _proposals(console)
    if as_json:
        waits = [{"rollout": each.rollout, "site": each.site, "state": "proposed"} for each in waiting]
        print_json([*waits, *values][:limit])
        return
    now = utc_now()
    rows = [
        *((w.rollout, w.kind, _what(w.site, w.ref), "proposed", f"{len(w.nodes)} nodes", "") for w in waiting),
        *(
            (
                each.rollout,
                each.kind,
                _what(each.site, each.ref),
                state_words(each.state),
                counts_words(each.counts.items()),
                ago(now - each.began) if each.began is not None else "",
            )
            for each in found
        ),
    ][:limit]
    if rows:
        print_table(_HEAD, rows)
    else:
        click.echo("the console knows no rollout", err=True)


def show_via(console: ConsoleClient, settings: Settings, id_: str, state: str | None, *, as_json: bool) -> int:
    """Print a rollout node by node, as the console heard it, and return its exit code; 0 while it runs."""
    import time

    from deploykit.fleet.rolloutstates import ENDS
    from deploykit.via.follower import look_at
    from deploykit.via.following import model_of, plan_of_rollout

    rollout = rollout_named(console, id_)
    for proposal in _proposals(console):
        if proposal.rollout == rollout:
            return _show_proposal(settings, proposal, state, as_json=as_json)
    seen = look_at(console, rollout)
    plan = plan_of_rollout(seen.rollout, tuple(seen.nodes.values()))
    model = model_of(plan, seen.rollout, seen.nodes, time.time())
    if state is not None:
        for node, status in model.nodes.items():
            if status.state == state:
                click.echo(visible(node))
        return 0
    code = model.exit_code(plan) if seen.rollout.state in ENDS else 0
    if as_json:
        value = console.get(f"/deploys/{quote(rollout, safe='')}").value
        summary = value.get("summary") if isinstance(value, dict) else None
        nodes = [
            {"node": node, "state": status.state, "phase": status.phase, "detail": status.detail}
            for node, status in model.nodes.items()
        ]
        print_json({**(summary if isinstance(summary, dict) else {}), "exit_code": code, "nodes": nodes})
        return code
    for line in _show_lines(seen.rollout):
        click.echo(visible(line))
    width = max((len(node) for node in plan.nodes), default=0)
    for node, status in model.nodes.items():
        detail = f"  {status.detail}" if status.detail else ""
        click.echo(visible(f"  {node:<{width}}  {state_words(status.state):<11}{detail}".rstrip()))
    return code


def _show_proposal(settings: Settings, proposal: ProposalShown, state: str | None, *, as_json: bool) -> int:
    """Print a rollout that waits for people; none of its nodes has a state yet."""
    from deploykit.cli.viaapprove import show_waiting

    if state is None:
        show_waiting(settings, proposal, as_json=as_json)
    return 0


def _show_lines(rollout: FollowedRollout) -> list[str]:
    from deploykit.operations.times import shown_time

    by = f" by {rollout.requested_by}" if rollout.requested_by else ""
    on = f" on {rollout.host}" if rollout.host else ""
    why = f": {rollout.detail}" if rollout.detail else ""
    began = [f"begun {shown_time(rollout.began)}{by}{on}"] if rollout.began is not None else []
    what = _what(rollout.site, rollout.ref)
    return [
        f"{what} ({rollout.commit[:12] or '?'}), rollout {rollout.rollout}",
        *began,
        f"{state_words(rollout.state)}{why}",
    ]


def control_via(console: ConsoleClient, id_: str, kind: str, *, rollback: bool = False, as_json: bool = False) -> int:
    """Ask something of a rollout that a console coordinates; an abort of one that waits for people withdraws it."""
    from deploykit.web.actions.shown import ActionOutcome

    rollout = rollout_named(console, id_)
    if kind == "abort" and rollout in {each.rollout for each in _proposals(console)}:
        console.do("POST", f"/deploys/{quote(rollout, safe='')}/withdraw")
        if as_json:
            print_json({"rollout": rollout, "withdrawn": True})
        else:
            click.echo(f"{visible(rollout)} is withdrawn; nothing was sent")
        return 0
    body: dict[str, object] = {"kind": kind, **({"rollback": True} if rollback else {})}
    outcome = console.done(ActionOutcome, "POST", f"/deploys/{quote(rollout, safe='')}/control", body)
    if as_json:
        print_json({"rollout": rollout, "asked": kind, "detail": outcome.detail})
    else:
        back = " and to roll back" if rollback else ""
        text = outcome.detail if outcome.state != "asked" else f"asked to {kind}{back}"
        click.echo(visible(f"{rollout}: {text}; see `deploykit rollout show {rollout} --via {console.url}`"))
    return 0


def rollout_named(console: ConsoleClient, id_: str) -> str:
    """Return the id of a rollout of a console.

    Args:
        id_: the id, a beginning that no other one has, or `last`: the newest that was begun, else that is proposed.

    Raises:
        UsageError: there is none, or more than one.
    """
    from deploykit.errors import UsageError
    from deploykit.fleet.journal import is_rollout_id

    if id_ == "last":
        for found in (_begun(console, 1), [each.rollout for each in _proposals(console)]):
            if found:
                return found[0]
        raise UsageError("the console knows no rollout", "see `deploykit rollout list`")
    known = {*_begun(console, _LOOKED_THROUGH), *(each.rollout for each in _proposals(console))}
    alike = sorted(each for each in known if each.startswith(id_)) if id_ not in known else [id_]
    if len(alike) > 1:
        raise UsageError(f"more than one rollout begins with {id_[:80]}: {', '.join(alike[:5])}", "give more of its id")
    if not alike and not is_rollout_id(id_):
        raise UsageError(f"the console knows no rollout {id_[:80]!a}", "see `deploykit rollout list`")
    return alike[0] if alike else id_  # an older one may still be found by its whole id


def _begun(console: ConsoleClient, limit: int) -> list[str]:
    """Return the ids of rollouts that were begun, the newest first."""
    from deploykit.via.answers import FollowedRollout

    return [each.rollout for each in console.items(FollowedRollout, "/deploys", {"limit": str(limit)})]


def _proposals(console: ConsoleClient) -> list[ProposalShown]:
    """Return what waits for people; nothing where the console only shows, or the token may not see it."""
    from deploykit.errors import PolicyRefused
    from deploykit.web.actions.shown import ProposalShown

    try:
        return console.items(ProposalShown, "/proposals")
    except PolicyRefused:
        return []


def _what(site: str, ref: str) -> str:
    from deploykit.names import RefName, short_ref

    return f"{site} {short_ref(RefName(ref))}" if ref else site


__all__ = ["control_via", "list_via", "rollout_named", "show_via"]
