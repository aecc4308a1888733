"""From a planned rollout to what is shown of it: comparison, scripts, warnings, digest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import attrs

from deploykit.errors import DeploykitError
from deploykit.fleet.lockview import view_locks
from deploykit.fleet.plan import Plan, Target
from deploykit.messages import one_line
from deploykit.messages.deploy import DeployPhase
from deploykit.names import NodeName, RepoName
from deploykit.operations.compare import CommitComparison
from deploykit.operations.nodes import shortened
from deploykit.operations.releasescripts import scripts_of_commit
from deploykit.operations.rolloutplan import PlannedRollout
from deploykit.trust.lockrules import KnownStatement
from deploykit.web.actions.actionports import ActionPorts
from deploykit.web.actions.choosing import ChosenNodes
from deploykit.web.actions.needs import MandateTimes, SigningNeeded
from deploykit.web.actions.plandigest import digest_of
from deploykit.web.actions.planrows import planned_nodes
from deploykit.web.actions.shown import PlannedScript, PlanShown
from deploykit.web.actions.standing import running_elsewhere
from deploykit.web.actions.targetref import ResolvedTarget
from deploykit.web.pages.comparing import Comparisons
from deploykit.web.projection.views import MAX_LIMIT, PageRequested, SiteOnNode
from deploykit.web.viewer import Viewer

_log = logging.getLogger(__name__)

#: Pages of a site's nodes that are read: 10,000 nodes.
_PAGES = 20


@attrs.frozen(kw_only=True, slots=True)
class PlanParts:
    """What a plan is made of.

    Args:
        planned: can be carried out.
        chosen: its nodes, as they described themselves.
        resolved: the one target of all; None where each node has its own, or the target is an earlier rollout's.
        repo: what the site is made from; None where nobody knows.
        needs, times: who must sign, and when that holds.
        command: the line that does the same.
        own_way_back: each node goes back to its own previous release.
        back_to: all nodes go back to one release, which need not be their own previous one.
    """

    planned: PlannedRollout
    chosen: ChosenNodes
    resolved: ResolvedTarget | None
    repo: RepoName | None
    needs: SigningNeeded
    times: MandateTimes = attrs.field(factory=MandateTimes)
    command: str = ""
    own_way_back: bool = False
    back_to: bool = False


@attrs.frozen(kw_only=True, slots=True)
class DraftedRollout:
    """A plan that can be carried out, and how it is shown.

    Args:
        lock: in the way; None where there is none, or it lets the rollout pass.
    """

    planned: PlannedRollout
    shown: PlanShown
    needs: SigningNeeded
    times: MandateTimes
    lock: KnownStatement | None = None


class PlanPresenter:
    """Shows plans. Use it from any thread."""

    def __init__(self, ports: ActionPorts, comparisons: Comparisons) -> None:
        self._ports = ports
        self._comparisons = comparisons

    def drafted(self, viewer: Viewer, parts: PlanParts) -> DraftedRollout:
        """Return a plan with what is shown of it."""
        ports, planned, plan, now = self._ports, parts.planned, parts.planned.plan, self._ports.now()
        locks = view_locks(parts.chosen.nodes, ports.trust(), now).of(plan.site)
        in_force = locks.in_force if locks is not None else ()
        phase: DeployPhase = "rollback" if plan.kind == "rollback" else "deploy"
        lock = next((each for each in in_force if not each.lets_pass(phase)), None)
        nodes = planned_nodes(
            plan,
            parts.chosen.states,
            self._known_rows(viewer, plan),
            _holding(parts, len(plan.nodes)),
            own_way_back=parts.own_way_back,
        )
        only = plan.releases[0] if len(plan.releases) == 1 else None
        commit = only.commit if only is not None else ""
        running = ports.kept.running(plan.site)
        compared, compared_note = self._compared(parts.repo, {node.live_commit for node in nodes}, commit)
        elsewhere = running_elsewhere(ports.kept, ports.queries, viewer, plan.site)
        digest = digest_of(
            plan,
            nodes,
            now.timestamp(),
            needs=[parts.needs.signatures, parts.needs.person],
            without_build=planned.without_build,
            override_lock=planned.override_lock,
            lock=[str(each) for each in in_force],
            times=parts.times.typed,
        )
        shown = PlanShown(
            site=plan.site,
            kind=plan.kind,
            ref=(only.ref or "") if only is not None else "",
            commit=commit,
            nodes=nodes,
            left_out=parts.chosen.left_out,
            needs=parts.needs.signatures,
            needs_person=parts.needs.person,
            locked=str(in_force[0]) if in_force else "",
            running=running.rollout if running is not None else "",
            comparison=compared,
            scripts=self._scripts(plan, parts.repo),
            digest=digest,
            command=parts.command,
            notes=_distinct((*_needs_notes(parts.needs), *planned.notes, *parts.chosen.notes, *compared_note)),
            warnings=_distinct((*_warnings(ports, parts, lock), *elsewhere)),
        )
        return DraftedRollout(planned=planned, shown=shown, needs=parts.needs, times=parts.times, lock=lock)

    def _known_rows(self, viewer: Viewer, plan: Plan) -> dict[str, SiteOnNode]:
        """Return what was known of the site on each node before it was asked."""
        found: dict[str, SiteOnNode] = {}
        after = ""
        for _ in range(_PAGES):
            page = self._ports.queries.site_nodes(viewer, plan.site, PageRequested(after=after, limit=MAX_LIMIT))
            found.update((row.node, row) for row in page.items)
            after = page.next
            if not after:
                break
        return found

    def _compared(
        self, repo: RepoName | None, live: set[str], commit: str
    ) -> tuple[CommitComparison | None, tuple[str, ...]]:
        if repo is None or not commit:
            return None, ()
        if len(live) != 1:
            return None, (f"{len(live)} different releases are live: there is no one comparison",)
        old = next(iter(live))
        if not old:
            return None, ("nothing is known to be live: there is nothing to compare with",)
        outcome = self._comparisons.between(self._ports.settings, repo, old, commit)
        if outcome.found is None:
            # Whoever reads it sits at another machine.
            problem = outcome.problem.replace("this machine", "the console's machine")
            return None, (f"no preview of commits: {problem}",)
        return outcome.found, ()

    def _scripts(self, plan: Plan, repo: RepoName | None) -> tuple[PlannedScript, ...]:
        if repo is None or plan.kind != "deploy":
            return ()
        try:
            found = scripts_of_commit(self._ports.settings, plan.site, repo, plan.targets[plan.nodes[0]].commit)
        except DeploykitError as error:  # the mirror lacks the commit, or is damaged: the comparison says so, too
            _log.info("no preview of the scripts of %s: %s", plan.site, error)
            return ()
        why = {each.path: f" ({each.problem})" if each.problem else "" for each in found}
        return tuple(
            PlannedScript(step=each.step, path=one_line(f"{each.path}{why[each.path]}"), text=each.text)
            for each in found
        )


def _holding(parts: PlanParts, count: int) -> Callable[[NodeName], bool | None]:
    resolved = parts.resolved

    def holds(node: NodeName) -> bool | None:
        return resolved.holds(node, count) if resolved is not None else None

    return holds


def _needs_notes(needs: SigningNeeded) -> Iterator[str]:
    if needs.signatures:
        who = "1 person" if needs.signatures == 1 else f"{needs.signatures} different people"
        key = " with a passkey or security key" if needs.person else ""
        yield f"{who} must sign{key} before it begins: {needs.why}"


def _warnings(ports: ActionPorts, parts: PlanParts, lock: KnownStatement | None) -> Iterator[str]:
    planned, plan = parts.planned, parts.planned.plan
    if lock is not None:
        way = "the lock is overridden" if planned.override_lock else "nodes refuse this until it is unlocked"
        yield f"{plan.site} is {one_line(str(lock), 400)}: {way}"
    if parts.resolved is not None:
        yield from parts.resolved.warnings
    silent = [each.node for each in parts.chosen.left_out]
    if silent:
        yield f"left out: {shortened(silent)}"
    known = ports.settings.sites.get(plan.site)
    if plan.kind == "deploy" and known is not None and known.require_build:
        jobs = ", ".join(known.require_build)
        if planned.without_build:
            yield f"it goes without a successful build of {jobs}"
        elif not planned.evidence:
            yield f"no successful build of {jobs} is known here: nodes that know none refuse"
    if parts.back_to and parts.needs.signatures:
        yield "under a mandate a node goes back to its own previous release alone: to another one it refuses"
    same = [node for node, target in plan.targets.items() if Target.of(parts.chosen.states.get(node)) == target]
    if same and len(same) == len(plan.nodes):
        yield f"every node has {plan.releases[0].name} already"


def _distinct(lines: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(lines))


__all__ = ["DraftedRollout", "PlanParts", "PlanPresenter"]
