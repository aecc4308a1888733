"""Plan a rollout for somebody at the console: nodes and origin are asked, nothing else is sent.

Rules:

* A plan is made anew from what nodes say each time; what was shown before is never carried out unseen.
* Whether people must sign is decided here: by the site, as the settings or the nodes have it, by who asks, or because
  they asked for it.
* What only an admin may ask for is refused before anybody is asked.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from deploykit.errors import ActionRefused, UsageError
from deploykit.fleet.journal import is_rollout_id
from deploykit.fleet.options import RolloutOptions
from deploykit.fleet.plan import Plan, make_plan
from deploykit.fleet.replay import replay
from deploykit.messages import SiteRelease, SiteState, one_line
from deploykit.messages.rollout import RolloutKind
from deploykit.names import NodeName, RepoName, SiteName
from deploykit.operations.rolloutplan import (
    PlannedRollout,
    plan_again,
    plan_deploy,
    plan_rollback,
    plan_rollback_to,
)
from deploykit.operations.targets import way_back_objection
from deploykit.web.actions.actionports import ActionPorts, site_named
from deploykit.web.actions.asked import DeployAsked, NodesAsked, RollbackAsked
from deploykit.web.actions.choosing import ChosenNodes, choose_nodes
from deploykit.web.actions.drafting import DraftedRollout, PlanParts, PlanPresenter
from deploykit.web.actions.needs import mandate_times, require_admin, require_mandate, signing_needed
from deploykit.web.actions.options import parse_options
from deploykit.web.actions.plancommand import command_of, retry_command
from deploykit.web.actions.rights import require
from deploykit.web.actions.shown import LeftOutNode
from deploykit.web.actions.standing import rollout_elsewhere
from deploykit.web.actions.targetref import ResolvedTarget, repository_of, resolve_target
from deploykit.web.pages.comparing import Comparisons
from deploykit.web.projection.views import PageRequested
from deploykit.web.viewer import Viewer

#: Names of nodes that are looked at for one that resembles a misspelt one.
_ALIKE: Final = 500


class RolloutPlanner:
    """Makes plans. Use it from any thread.

    Args:
        ports: what it works with.
        comparisons: compares what is live with what would be.
    """

    def __init__(self, ports: ActionPorts, comparisons: Comparisons | None = None) -> None:
        self._ports = ports
        self._presenter = PlanPresenter(ports, comparisons or Comparisons())

    def draft(self, viewer: Viewer, asked: DeployAsked | RollbackAsked) -> DraftedRollout:
        """Return the plan of what somebody asks for.

        Raises:
            ActionRefused: they may not ask for it, a field is wrong, or nodes or the origin do not let it.
            DeploykitError: nodes or the origin cannot be asked.
        """
        ports, site = self._ports, site_named(asked.site)
        kind: RolloutKind = "deploy" if isinstance(asked, DeployAsked) else "rollback"
        require(viewer, site, "stage", f"plan a {kind}")
        require_admin(viewer, site, asked)
        options = parse_options(asked.options, kind)
        times = mandate_times(asked, ports.now())
        chosen = self._chosen(viewer, asked.chosen, site, history=kind == "rollback")
        repo = repository_of(ports.settings, site, chosen.states, kind)
        planned, resolved, left_out = self._planned(viewer, asked, site, repo, chosen, options)
        needs = signing_needed(ports.settings, viewer, site, _states_of(planned.plan, chosen), approval=asked.approval)
        require_mandate(times, needs)
        planned = attrs.evolve(planned, override_lock=one_line(asked.override_lock), asks=needs.asks)
        to = asked.to.strip() if isinstance(asked, RollbackAsked) else ""
        parts = PlanParts(
            planned=planned,
            chosen=attrs.evolve(chosen, left_out=(*chosen.left_out, *left_out)),
            resolved=resolved,
            repo=repo,
            needs=needs,
            times=times,
            command=command_of(asked, planned.plan, proposes=needs.signatures > 0),
            own_way_back=kind == "rollback" and not to,
            back_to=bool(to),
        )
        return self._presenter.drafted(viewer, parts)

    def draft_retry(self, viewer: Viewer, rollout: str, *, approval: bool = False) -> DraftedRollout:
        """Return the plan of a retry of what failed, refused or was silent in a rollout of this console.

        Raises:
            ActionRefused: there is no such rollout here, it has not ended, or nothing is left.
        """
        ports = self._ports
        kept = ports.kept.find(rollout) if is_rollout_id(rollout) else None
        if kept is None or not viewer.sees(kept.head.plan.site):
            raise rollout_elsewhere(ports.queries, viewer, rollout, f"deploykit rollout retry {rollout[:200]}")
        site = kept.head.plan.site
        require(viewer, site, "stage", "plan a retry")
        if kept.state != "ended":
            raise ActionRefused(f"rollout {rollout} has not ended", "wait for its end, or abort it", status=409)
        contents = ports.kept.contents(rollout)
        if contents.head.without_build:
            require(viewer, site, "admin", "retry a rollout that left out builds")
        model = replay(contents).model
        try:
            planned = plan_again(ports.settings, contents.head, model, key=ports.key, requested_by=viewer.name)
        except UsageError as error:
            raise ActionRefused(error.problem, error.remedy, status=409) from error
        chosen = self._chosen(viewer, NodesAsked(exactly=tuple(planned.plan.nodes)), site)
        planned = _narrowed(planned, chosen)
        needs = signing_needed(
            ports.settings,
            viewer,
            site,
            _states_of(planned.plan, chosen),
            approval=approval,
            retried=planned.retried,
        )
        parts = PlanParts(
            planned=attrs.evolve(planned, asks=needs.asks),
            chosen=chosen,
            resolved=None,
            repo=repository_of(ports.settings, site, chosen.states),
            needs=needs,
            command=retry_command(rollout, proposes=needs.signatures > 0),
        )
        return self._presenter.drafted(viewer, parts)

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _chosen(self, viewer: Viewer, asked: NodesAsked, site: SiteName, *, history: bool = False) -> ChosenNodes:
        """Return the nodes that are meant.

        Raises:
            ActionRefused: 404 where nobody has heard of the site.
        """
        ports = self._ports
        ports.signer()
        ports.trust()

        def known(name: str) -> Sequence[str]:
            if ports.queries.node(viewer, name) is not None:
                return (name,)
            pages = (ports.queries.nodes(viewer, PageRequested(search=part, limit=_ALIKE)) for part in (name[:3], ""))
            return tuple(node.node for page in pages for node in page.items)

        try:
            return choose_nodes(asked, site, ports.ask, known, history=history)
        except ActionRefused as error:
            if "site" not in error.problems:
                raise
            if site not in ports.settings.sites:
                self._require_site(viewer, site)
            raise ActionRefused(error.problem, error.remedy, status=422, nodes=error.problem) from error

    def _require_site(self, viewer: Viewer, site: SiteName) -> None:
        """Accept a site of which somebody has heard.

        Raises:
            ActionRefused: 404, with the name that it may have been meant to be.
        """
        queries = self._ports.queries
        if queries.site(viewer, site) is not None:
            return
        close = difflib.get_close_matches(site, [each.site for each in queries.sites(viewer)], 1, 0.6)
        remedy = f"did you mean {close[0]}?" if close else "see the list of sites"
        raise ActionRefused(f"there is no site {site}: no node has it", remedy, status=404, site=remedy)

    def _planned(
        self,
        viewer: Viewer,
        asked: DeployAsked | RollbackAsked,
        site: SiteName,
        repo: RepoName | None,
        chosen: ChosenNodes,
        options: RolloutOptions,
    ) -> tuple[PlannedRollout, ResolvedTarget | None, tuple[LeftOutNode, ...]]:
        ports, settings = self._ports, self._ports.settings
        by, key = viewer.name, ports.key
        if isinstance(asked, RollbackAsked) and not asked.to.strip():
            if asked.commit.strip():
                problem = "a commit goes with the ref to go back to"
                raise ActionRefused(problem, "give both, or none", status=422, commit=problem)
            previous, left_out = _previous(chosen, site)
            options = _ordered(options, previous, str(sorted(previous.items(), key=str)))
            _require_canaries(options, previous)
            made = plan_rollback(settings, site, previous, options, key=key, requested_by=by)
            return made, None, left_out
        ref, field = (asked.to, "to") if isinstance(asked, RollbackAsked) else (asked.ref, "ref")
        resolved = resolve_target(settings, ports.queries, viewer, repo, ref, asked.commit, field)
        target, names = resolved.target, chosen.names
        full = target.ref or ""
        options = _ordered(options, names, target.commit)
        _require_canaries(options, names)
        if isinstance(asked, RollbackAsked):
            made = plan_rollback_to(
                settings, site, full, names, options, commit=target.commit, repo=repo, key=key, requested_by=by
            )
            return made, resolved, ()
        made = plan_deploy(
            settings,
            site,
            full,
            names,
            options,
            commit=target.commit,
            repo=repo,
            key=key,
            without_build=asked.without_build,
            requested_by=by,
        )
        return made, resolved, ()


def _states_of(plan: Plan, chosen: ChosenNodes) -> dict[NodeName, SiteState]:
    """Return the site as the nodes of a plan describe it."""
    return {node: chosen.states[node] for node in plan.nodes if node in chosen.states}


def _previous(chosen: ChosenNodes, site: SiteName) -> tuple[Mapping[NodeName, SiteRelease], tuple[LeftOutNode, ...]]:
    """Return what each node would go back to, and who cannot.

    Raises:
        ActionRefused: 422: none of them can.
    """
    previous: dict[NodeName, SiteRelease] = {}
    left_out = []
    for node in chosen.names:
        state = chosen.states[node]
        if objection := way_back_objection(state, site):
            left_out.append(LeftOutNode(node=node, why=one_line(objection)))
        elif state.previous is not None:
            previous[node] = state.previous
    if not previous:
        why = "; ".join(dict.fromkeys(each.why for each in left_out))
        problem = f"no node has a release to go back to: {one_line(why)}"
        raise ActionRefused(problem, "name a ref to go back to", status=422, to="name a ref to go back to")
    return previous, tuple(left_out)


def _ordered(options: RolloutOptions, nodes: Iterable[NodeName], what: str) -> RolloutOptions:
    """Return options whose random order is the same whenever the same is planned: a plan is shown, then made again."""
    if options.order != "random":
        return options
    digest = hashlib.sha256(f"{what}:{sorted(nodes)}".encode()).digest()
    return attrs.evolve(options, seed=int.from_bytes(digest[:4], "big") >> 1)


def _require_canaries(options: RolloutOptions, nodes: Iterable[NodeName]) -> None:
    absent = sorted((options.first_nodes or frozenset()).difference(nodes))
    if absent:
        problem = f"not among the chosen nodes: canary {', '.join(absent[:5])}"
        raise ActionRefused(problem, "choose canaries from the nodes chosen", status=422, first_nodes=problem)


def _narrowed(planned: PlannedRollout, chosen: ChosenNodes) -> PlannedRollout:
    """Return a retry with those of its nodes that answered."""
    plan = planned.plan
    heard = set(chosen.names)
    if heard.issuperset(plan.nodes):
        return planned
    options = plan.options
    if options.first_nodes is not None:
        options = attrs.evolve(options, first_nodes=options.first_nodes.intersection(heard) or None)
    narrowed = make_plan(
        site=plan.site,
        nodes=[node for node in plan.nodes if node in heard],
        target=plan.targets,
        kind=plan.kind,
        options=options,
        rollout=plan.rollout,
        requested_by=plan.requested_by,
        correlation_id=plan.correlation_id,
    )
    return attrs.evolve(planned, plan=narrowed)


__all__ = ["RolloutPlanner"]
