"""A rollout in words: one line for each change, the plan before it starts, what is left to do at its end.

Every text that a node, a broker or a file gave is escaped here (`visible`); nothing is ever read as markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from deploykit.cli.visible import visible
from deploykit.fleet.view import allowed_failures, duration, some_names, stages

if TYPE_CHECKING:
    from deploykit.fleet.plan import Plan, Target
    from deploykit.fleet.view import RolloutPicture, RolloutView, ViewChange
    from deploykit.messages import DeployReported
    from deploykit.names import NodeName

#: States whose name is no English.
_WORDS: Final = {"rolled-back": "rolled back", "rolling-back": "rolling back"}
#: What each phase asks for.
_PHASES: Final = {
    "deploy": "deploy",
    "prepare": "prepare",
    "activate": "activate",
    "rollback": "go back",
    "discard": "discard what was prepared",
}
#: What a rollout does in the states that a line is worth: at its end the summary says more.
_STAGES: Final = {
    "preparing": "preparing all nodes; nothing is live yet",
    "prepared": "enough nodes are prepared; nothing is live yet",
    "canary": "canary stage",
    "rolling": "batch by batch",
    "paused": "paused",
    "aborting": "stopping: what was prepared is discarded",
    "rolling-back": "going back",
}
_MOST_NAMED: Final = 5


def state_words(state: str) -> str:
    """Return a state as it stands in a sentence."""
    return _WORDS.get(state, state)


def plan_title(plan: Plan, *, with_id: bool = True) -> str:
    """Return the rollout in one line: what goes where.

    The id is shown in full: it is what every later command takes. A plan that is not begun has none to take.
    """
    releases = plan.releases
    what = _called(releases[0]) if len(releases) == 1 else f"{len(releases)} different releases"
    many = f"{len(plan.nodes)} nodes" if len(plan.nodes) != 1 else str(plan.nodes[0])
    verb = "goes back to" if plan.kind == "rollback" else "gets"
    return visible(f"{plan.site} {verb} {what} on {many}" + (f", rollout {plan.rollout}" if with_id else ""))


def plan_lines(plan: Plan) -> Iterator[str]:
    """Yield the plan for a person: what goes live, in which order, and what would stop it."""
    from deploykit.messages.site import parts_named

    options = plan.options
    yield plan_title(plan, with_id=False)
    for part in plan.releases[0].parts if len(plan.releases) == 1 else ():
        yield visible(f"  {part.repo}: {_short(part.ref)} ({part.commit[:12]})")
    for name, nodes in stages(plan):
        label = "canary" if name == "canary" else f"batch {name}"
        yield visible(f"  {label + ':':<10} {len(nodes):>4}  {some_names(nodes, 6)}")
    targets: dict[Target, list[NodeName]] = {}
    for node in plan.nodes:
        targets.setdefault(plan.targets[node], []).append(node)
    if len(targets) > 1:
        for target, those in targets.items():
            which = f" ({parts_named(target.parts)})" if target.parts else ""
            yield visible(f"  {_called(target)}{which}: {some_names(those, 6)}")
    allowed = allowed_failures(plan)
    rules = [f"stops when more than {allowed} of {len(plan.nodes)} fail", f"then: {options.on_failure}"]
    if not plan.one_phase:
        rules.append("all are prepared first" if options.prepare == "all" else "each batch is prepared by itself")
        if options.quorum is not None:
            rules[-1] += f", at least {options.quorum.of(len(plan.nodes))} of them before the first is activated"
    if options.order == "random":
        rules.append(f"in the random order of --seed {options.seed}")
    rules.append(f"each node has {duration(options.timeout)} for a phase")
    if options.pause == "ask":
        rules.append("asks before each batch")
    elif options.pause:
        rules.append(f"waits {duration(options.pause)} before each batch")
    if options.bake:
        rules.append(f"a batch counts as good after {duration(options.bake)}")
    if options.deadline is not None:
        rules.append(f"ends after {duration(options.deadline)} at the latest")
    yield f"  {'; '.join(rules)}"


def plan_entry(plan: Plan) -> dict[str, object]:
    """Return a plan for a script."""
    from deploykit.messages.site import parts_entry

    options = plan.options
    return {
        "rollout": plan.rollout,
        "kind": plan.kind,
        "site": plan.site,
        "stages": [{"stage": name, "nodes": list(nodes)} for name, nodes in stages(plan)],
        "targets": {
            node: {"ref": target.ref, "commit": target.commit, "parts": parts_entry(target.parts)}
            for node, target in plan.targets.items()
        },
        "options": {
            "batch": [str(size) for size in options.batch],
            "order": options.order,
            "seed": options.seed,
            "max_failures": str(options.max_failures),
            "pause": options.pause,
            "bake": options.bake,
            "timeout": options.timeout,
            "deadline": options.deadline,
            "prepare": options.prepare,
            "quorum": str(options.quorum) if options.quorum is not None else None,
            "on_failure": options.on_failure,
        },
        "requested_by": plan.requested_by,
    }


def change_lines(changes: Sequence[ViewChange], view: RolloutView, *, steps: bool) -> Iterator[str]:
    """Yield a line for each change. Nodes that come to the same state at once share one, however many they are.

    Args:
        steps: the steps of nodes have lines, too, and what they print.
    """
    groups: dict[tuple[str, str, str], list[NodeName]] = {}
    for change in changes:
        if change.kind == "node" and change.node is not None and change.state not in ("failed", "refused"):
            groups.setdefault((change.state, change.phase, change.detail), []).append(change.node)
    for change in changes:
        node = change.node
        if change.kind == "rollout":
            line = _STAGES.get(change.state, "")
            includes = change.detail.startswith(f"{line} ")  # `paused between batches` has both
            detail = f": {change.detail}" if change.detail and not includes else change.detail.removeprefix(line)
            if line and (change.state != "rolling" or len(view.plan.nodes) > 1):
                yield visible(f"{line}{detail}")
        elif change.kind == "node" and node is not None:
            key = (change.state, change.phase, change.detail)
            if change.state in ("failed", "refused"):
                step = f" at {change.step}" if change.step else ""
                why = f": {change.detail}" if change.detail else ""
                yield visible(f"{node} {change.state}{step} after {duration(change.seconds)}{why}")
            elif key in groups:
                yield visible(_together(change, groups.pop(key)))
        elif steps and change.kind == "step" and change.state != "began":
            code = f", exit {change.exit_code}" if change.exit_code else ""
            yield visible(f"{node} {change.step} {change.state} ({duration(change.seconds)}{code})")
        elif steps and change.kind == "output":
            for line in change.lines:
                yield f"{node} {visible(change.step)} | {visible(line)}"


def _together(change: ViewChange, nodes: Sequence[NodeName]) -> str:
    who = some_names(nodes, _MOST_NAMED)
    if change.state == "prepared" and change.phase == "discard":  # it refused to, failed to, or did not answer
        return f"{who} not discarded: {change.detail or 'no reason given'}"
    if change.state == "asked":
        return f"{who} asked to {_PHASES.get(change.phase, change.phase)}"
    took = f" ({duration(change.seconds)})" if len(nodes) == 1 and change.state in ("prepared", "active") else ""
    why = f": {change.detail}" if change.detail and change.state != "active" else ""
    return f"{who} {state_words(change.state)}{took}{why}"


def twin_lines(report: DeployReported) -> list[str]:
    """Return lines about the agents that answer under the node's name; none where there is only one."""
    if not report.twins:
        return []
    reporting = f"{report.instance} on {report.host}"
    return [
        f"node {report.node}: {len(report.twins) + 1} agents answer under this name, and this one reports: {reporting}",
        *(f"node {report.node}: another agent: {twin}; its sites may differ" for twin in report.twins),
    ]


def counts_words(counts: Iterable[tuple[str, int]]) -> str:
    """Return counts in one line.

    >>> counts_words([("failed", 1), ("active", 3)])
    '1 failed, 3 active'
    """
    return ", ".join(f"{count} {state_words(state)}" for state, count in counts) or "no nodes"


def budget_words(picture: RolloutPicture) -> str:
    """Return how much of the failure budget is used."""
    return f"{picture.failures} failed, {picture.allowed} may"


def _called(target: Target) -> str:
    return f"{target.name} ({target.commit[:12]})"


def _short(ref: str) -> str:
    from deploykit.names import RefName, short_ref

    return short_ref(RefName(ref))
