"""Rollouts as `rollout list` and `rollout show` print them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from deploykit.builds.gate import ago
from deploykit.cli.rolloutsummary import advice_lines
from deploykit.cli.rollouttext import counts_words, plan_entry, plan_title, state_words
from deploykit.cli.visible import visible
from deploykit.fleet.summary import summarize
from deploykit.fleet.view import stages
from deploykit.operations.times import shown_time

if TYPE_CHECKING:
    from datetime import datetime

    from deploykit.fleet.mandates import HeldMandate
    from deploykit.operations.rolloutstore import RolloutEntry, StoredRollout


#: Heads of the columns of `list_rows`.
LIST_HEAD: Final = ("rollout", "kind", "what", "state", "nodes", "begun")


def list_rows(entries: Sequence[RolloutEntry], now: datetime) -> list[tuple[str, ...]]:
    """Return the rows of `rollout list`."""
    return [
        (
            each.rollout,
            each.kind,
            each.target,
            _state(each, now),
            each.problem or (f"{each.nodes} nodes" if each.state == "proposed" else counts_words(each.counts.items())),
            ago(now - each.begun) if each.begun is not None else "",
        )
        for each in entries
    ]


def listed_entry(entry: RolloutEntry) -> dict[str, object]:
    """Return a rollout of the list for a script."""
    return {
        "rollout": entry.rollout,
        "site": entry.site,
        "kind": entry.kind,
        "target": entry.target,
        "requested_by": entry.requested_by,
        "state": entry.state,
        "running": entry.running,
        "begun": entry.begun.isoformat() if entry.begun is not None else None,
        "ended": entry.ended.isoformat() if entry.ended is not None else None,
        "nodes": entry.nodes,
        "counts": dict(entry.counts),
        "signatures": entry.signatures,
        "until": entry.until.isoformat() if entry.until is not None else None,
        "problem": entry.problem,
    }


def show_lines(stored: StoredRollout) -> Iterator[str]:
    """Yield a rollout for a person: what it is, how it stands, each node, and what to do next."""
    plan, model, head = stored.plan, stored.model, stored.contents.head
    yield plan_title(plan)
    by = f" by {plan.requested_by}" if plan.requested_by else ""
    yield visible(f"begun {shown_time(_moment(head.begun))}{by} on {head.host}")
    if head.mandate is not None:
        signers = ", ".join(_signed_by(head.mandate)) or "nobody"
        yield visible(f"approved until {shown_time(head.mandate.message.not_after)}, signed by {signers}")
    why = f": {model.detail}" if model.detail else ""
    yield visible(f"{state_words(model.state)} since {shown_time(stored.at)}{why}")
    if not model.ended:
        who = f": {stored.holder}" if stored.holder is not None else ""
        yield visible(f"coordinated now{who}" if stored.running else "nobody goes on with it")
    for request in stored.requests:
        yield visible(f"asked to {request.kind} by {request.by}; not yet done")
    width = max(len(node) for node in plan.nodes)
    for name, nodes in stages(plan):
        yield "canary" if name == "canary" else f"batch {name}"
        for node in nodes:
            status = model.nodes[node]
            detail = f"  {status.detail}" if status.detail else ""
            yield visible(f"  {node:<{width}}  {state_words(status.state):<11}{detail}".rstrip())
            for doubt in stored.doubts.get(node, ()):
                yield visible(f"  {'':<{width}}  a report in its name was not believed: {doubt}")
    summary = summarize(plan, model, later=stored.later)
    yield counts_words(summary.counts.items())
    if not model.ended and not stored.running:
        yield "to go on:"
        yield f"  deploykit rollout resume {plan.rollout}"
        yield "to end it:"
        yield f"  deploykit rollout abort {plan.rollout}"
    else:
        yield from map(visible, advice_lines(summary))


def shown_entry(stored: StoredRollout) -> dict[str, object]:
    """Return a rollout for a script."""
    model = stored.model
    stage_of = {node: name for name, nodes in stages(stored.plan) for node in nodes}
    return {
        **plan_entry(stored.plan),
        "state": model.state,
        "detail": model.detail,
        "running": stored.running,
        "begun": _moment(stored.contents.head.begun).isoformat(),
        "changed": stored.at.isoformat(),
        "host": stored.contents.head.host,
        "mandate": _mandate_entry(stored.contents.head.mandate),
        "exit_code": stored.exit_code,
        "counts": dict(summarize(stored.plan, model).counts),
        "requests": [{"kind": request.kind, "by": request.by} for request in stored.requests],
        "nodes": [
            {
                "node": node,
                "stage": stage_of[node],
                "state": status.state,
                "phase": status.phase,
                "detail": status.detail,
                "doubts": list(stored.doubts.get(node, ())),
            }
            for node, status in model.nodes.items()
        ],
    }


def _state(entry: RolloutEntry, now: datetime) -> str:
    if entry.problem:
        return "unreadable"
    if entry.state == "proposed":
        over = entry.until is not None and now > entry.until
        return "proposed, over" if over else f"proposed, signed by {entry.signatures}"
    if entry.ended is not None:
        return state_words(entry.state)
    return f"{state_words(entry.state)}, {'running' if entry.running else 'left'}"


def _mandate_entry(mandate: HeldMandate | None) -> dict[str, object] | None:
    if mandate is None:
        return None
    until = mandate.message.not_after.isoformat()
    return {"digest": mandate.digest, "not_after": until, "signed_by": _signed_by(mandate)}


def _signed_by(mandate: HeldMandate) -> list[str]:
    """Return the keys that signed a mandate, as its journal has it."""
    from deploykit.operations.mandatefiles import blobs_of
    from deploykit.trust.keyformat import fingerprint
    from deploykit.trust.sshsig import decode_blob

    return [fingerprint(decode_blob(blob).key) for blob in blobs_of(mandate)]


def _moment(seconds: float) -> datetime:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC)
