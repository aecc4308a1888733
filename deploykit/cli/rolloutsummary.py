"""The last words on a rollout: each node that is not as wanted, why, and what to do next. Texts are escaped here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from deploykit.cli.fleetparts import ref_options
from deploykit.cli.rollouttext import counts_words
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from datetime import datetime

    from deploykit.fleet.summary import NodeOutcome, RolloutSummary

#: Names of nodes that a suggested command lists; with more of them it names a way to list them.
_NAMED: Final = 4
#: How the core's reason for a silent node ends.
_MAY_OBEY: Final = "it may yet obey"
#: From how many nodes on that refused for one reason they share a line.
_ALIKE: Final = 3
#: Lines of output that are shown of a node that failed.
_OUTPUT: Final = 5


def promote_command(rollout: str, through: str = "") -> str:
    """Return the command that ends a pause; `through` is the URL of the console that coordinates the rollout."""
    return f"deploykit rollout promote {rollout}{_via(through)}"


def summary_lines(summary: RolloutSummary, *, through: str = "") -> Iterator[str]:
    """Yield the end of a rollout: its state, each bad node, and what comes next.

    Args:
        summary: how it ended.
        through: URL of the console that coordinated it; empty: this machine did.
    """
    plan = summary.plan
    why = f": {summary.detail}" if summary.detail else ""
    yield visible(f"rollout {plan.rollout} {_state(summary.state)} ({counts_words(summary.counts.items())}){why}")
    width = min(30, max((len(each.node) for each in summary.bad), default=0))
    alike = _refused_alike(summary)
    folded = {each.node for nodes in alike for each in nodes}
    for nodes in alike:
        yield from _folded_lines(nodes)
    for each in summary.bad:
        if each.node not in folded:
            yield from _node_lines(each, width)
    yield from map(visible, advice_lines(summary, through=through))


def advice_lines(summary: RolloutSummary, *, through: str = "") -> Iterator[str]:
    """Yield the commands that go on from here, each after a line with what it does; `through` as above."""
    plan, via = summary.plan, _via(through)
    if summary.state == "paused":
        yield "to go on:"
        yield f"  {promote_command(plan.rollout, through)}"
        yield "to end it here:"
        yield f"  deploykit rollout abort {plan.rollout}{via}"
    if summary.state not in ("failed", "aborted", "rolled-back"):
        return
    if summary.later:  # what would be taken back or tried again is no longer what is live
        yield f"rollout {summary.later} of {plan.site} was begun after it: to see what is live now:"
        yield _page(plan.site, through) or f"  deploykit status --all --site {plan.site}"
        return
    if summary.bad:
        if all(each.state == "refused" for each in summary.bad):
            yield "to try them once more, when the reason why they refused is gone:"
        else:
            yield "to try those that failed, refused or were silent once more:"
        if plan.kind == "deploy":
            refs = ref_options(plan.releases[0])
            yield f"  deploykit deploy {plan.site} {refs} --retry-failed {plan.rollout}{via}"
        else:
            yield f"  deploykit rollout retry {plan.rollout}{via}"
    if summary.changed and plan.kind == "deploy" and summary.state != "rolled-back":
        yield f"to take the new release back from the {_nodes(len(summary.changed))} that {_has(summary.changed)} it:"
        if len(summary.changed) > _NAMED:
            listed = f"deploykit rollout show {plan.rollout} --list active{via}"
            yield f"  {listed} | deploykit rollback {plan.site} --nodes -{via}"
        else:
            yield f"  deploykit rollback {plan.site} {' '.join(f'-I {node}' for node in summary.changed)}{via}"
    if any(each.state == "silent" for each in summary.bad):
        yield "to see what the silent nodes did, once they answer:"
        yield _page(plan.site, through) or f"  deploykit history {plan.site}"


def _via(through: str) -> str:
    return f" --via {through}" if through else ""


def _page(site: str, through: str) -> str:
    """Return the address of a site's page, where a console is there to show it."""
    return f"  {through}/sites/{site}" if through else ""


def summary_entry(summary: RolloutSummary) -> dict[str, object]:
    """Return the end of a rollout for a JSON line."""
    return {
        "state": summary.state,
        "detail": summary.detail,
        "exit_code": summary.exit_code,
        "counts": dict(summary.counts),
        "nodes": [
            {
                "node": each.node,
                "state": each.state,
                "phase": each.phase,
                "step": each.step,
                "detail": each.detail,
                "doubts": list(each.doubts),
                "may_obey_until": _iso(each.may_obey_until),
            }
            for each in summary.bad
        ],
    }


def _refused_alike(summary: RolloutSummary) -> list[list[NodeOutcome]]:
    """Return the nodes that refused for one reason, where several did: a lock says the same on each of hundreds."""
    groups: dict[tuple[str, str], list[NodeOutcome]] = {}
    for each in summary.bad:
        if each.state == "refused" and each.detail and not each.doubts:
            groups.setdefault((each.phase, each.detail), []).append(each)
    return [nodes for nodes in groups.values() if len(nodes) >= _ALIKE]


def _folded_lines(nodes: list[NodeOutcome]) -> Iterator[str]:
    from deploykit.fleet.folding import folded_names

    first = nodes[0]
    phase = f"{first.phase}: " if first.phase else ""
    yield visible(f"  {first.state:<8} {len(nodes)} nodes: {', '.join(folded_names(each.node for each in nodes))}")
    yield visible(f"  {'':<8} {phase}{first.detail}")


def _node_lines(each: NodeOutcome, width: int) -> Iterator[str]:
    phase = "" if each.step and each.phase == "deploy" else each.phase
    where = " ".join(part for part in (phase, each.step) if part)
    where += ": " if where else ""
    detail = each.detail or ("did not answer in time" if each.state == "silent" else "no reason given")
    if each.may_obey_until is not None:
        obeys = "" if detail.endswith(_MAY_OBEY) else f"; {_MAY_OBEY}"
        detail += f"{obeys} until {each.may_obey_until.astimezone():%H:%M:%S %Z}, and goes on with what it has begun"
    yield visible(f"  {each.state:<8} {each.node:<{width}}  {where}{detail}")
    pad = " " * (width + 13)
    for doubt in each.doubts:
        yield visible(f"{pad}a report in its name came, and was not believed: {doubt}")
    for line in each.output[-_OUTPUT:]:
        yield visible(f"{pad}| {line}")


def _nodes(count: int) -> str:
    return "node" if count == 1 else f"{count} nodes"


def _has(nodes: Sequence[object]) -> str:
    return "has" if len(nodes) == 1 else "have"


def _state(state: str) -> str:
    return {"rolled-back": "was rolled back", "aborted": "was aborted", "paused": "is paused"}.get(state, state)


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z") if moment is not None else None
