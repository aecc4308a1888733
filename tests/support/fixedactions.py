"""A console on which everything can be done, and nothing is: it answers from plain values and records what was asked.

It fits the fleet of `consoleworld` (shop on web-1 to web-4) and keeps the contract of `ports`: roles are judged, a plan
that came out otherwise is refused, a site that needs people is proposed, and a lock stops whoever did not make it.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Final

import attrs

from deploykit.errors import ActionRefused
from deploykit.messages.rollout import RolloutApproved
from deploykit.names import parse_node_name, parse_object_id, parse_ref_name, parse_repo_name, parse_site_name
from deploykit.operations.compare import ChangedFile, CommitComparison, ComparedCommit
from deploykit.settings.web import WebRole
from deploykit.web.actions.asked import ControlAsked, DeployAsked, LockAsked, NodesAsked, RollbackAsked
from deploykit.web.actions.ports import (
    ConsoleActions,
    LockActions,
    PresenceBoard,
    RelayActions,
    RolloutActions,
)
from deploykit.web.actions.rights import require
from deploykit.web.actions.shown import (
    ActionOutcome,
    LeftOutNode,
    LockState,
    PersonPresent,
    PlannedNode,
    PlannedScript,
    PlanShown,
    ProposalShown,
    SignatureShown,
)
from deploykit.web.projection.rolloutviews import RolloutDetail
from deploykit.web.projection.views import PageRequested
from deploykit.web.viewer import Viewer
from deploykit.wire import encode
from tests.support.consoleworld import NOW
from tests.support.fixedaccess import NODES, PASSWORD, Asked, FixedAccess

#: Refs that can be deployed, and what they stand for.
REFS: Final[Mapping[str, str]] = {
    "v2.4.1": "9c3e7d1f0a2b4c6d8e0f1a3b5c7d9e1f3a5b7c9d",
    "v2.4.0": "5f1a0c7b9e2d48f6a3c1b0d9e8f7a6b5c4d3e2f1",
    "v2.3.9": "77a1b3c5d7e9f1a3b5c7d9e1f3a5b7c9d1e3f5a7",
}
LIVE: Final = "v2.4.0"
BEFORE: Final = "v2.3.9"
_REPO: Final = parse_repo_name("shop/frontend")


@attrs.define(kw_only=True)
class FixedActions(RolloutActions, LockActions, RelayActions, PresenceBoard):
    """All actions but those on access, which `access` has. What is in it may be changed at any time.

    Args:
        nodes: of each site.
        needs: how many people must sign, by site; absent: none.
        silent: nodes that do not answer, and so are left out.
        lacking: nodes whose mirror does not hold the ref.
        locks: by site: who holds the lock, and why.
        running: the rollout that runs now, by site.
        waiting: proposals, by rollout.
        unheard: rollouts that the ledger has.
        present: who else is there.
        lock_state: what nodes show of a lock.
        refusals: by a method's name: what it raises instead of doing anything.
        asked: all calls, in their order.
    """

    nodes: Mapping[str, tuple[str, ...]] = NODES
    refs: Mapping[str, str] = REFS
    needs: dict[str, int] = attrs.Factory(dict)
    silent: tuple[str, ...] = ("web-4",)
    lacking: tuple[str, ...] = ()
    locks: dict[str, tuple[str, str]] = attrs.Factory(dict)
    running: dict[str, str] = attrs.Factory(dict)
    waiting: dict[str, ProposalShown] = attrs.Factory(dict)
    unheard: dict[str, RolloutDetail] = attrs.Factory(dict)
    present: tuple[PersonPresent, ...] = ()
    refusals: dict[str, ActionRefused] = attrs.Factory(dict)
    asked: list[Asked] = attrs.Factory(list)
    lock_state: LockState = attrs.Factory(lambda: LockState(site="", serial=1, nodes=3))
    now: datetime = NOW
    access: FixedAccess = attrs.field(factory=FixedAccess)

    @property
    def console(self) -> ConsoleActions:
        """The actions as `ConsoleContext` has them."""
        return ConsoleActions(rollouts=self, locks=self, access=self.access, relay=self, presence=self)

    def calls(self, what: str) -> list[tuple[object, ...]]:
        """Return what a method was called with, each time."""
        return [one.values for one in (*self.asked, *self.access.asked) if one.what == what]

    def _note(self, what: str, viewer: Viewer, *values: object) -> None:
        self.asked.append(Asked(what=what, viewer=viewer.name, values=values))
        if what in self.refusals:
            raise self.refusals[what]

    # -- rollouts ------------------------------------------------------------------------------------------------------

    def plan(self, viewer: Viewer, asked: DeployAsked | RollbackAsked) -> PlanShown:
        self._note("plan", viewer, asked)
        require(viewer, asked.site, "stage", "plan a rollout")
        return self._plan(asked)

    def _plan(self, asked: DeployAsked | RollbackAsked) -> PlanShown:
        chosen = self._chosen(asked.site, asked.chosen)
        back = isinstance(asked, RollbackAsked)
        ref = asked.to if isinstance(asked, RollbackAsked) else asked.ref
        if not ref and not back:
            raise ActionRefused("no ref is given", "choose a tag or a branch", status=422, ref="choose a tag or branch")
        if ref and self._short(ref) not in self.refs:
            field = {"to" if back else "ref": f"the origin has no {ref[:80]!a}"}
            raise ActionRefused(f"there is no ref {ref[:80]!a}", "see the refs of the site", status=422, **field)
        left = [LeftOutNode(node=node, why="did not answer within 10 s") for node in chosen if node in self.silent]
        heard = [node for node in chosen if node not in self.silent]
        target = self._short(ref) or BEFORE
        first = asked.options.first or ("1" if len(heard) > 1 else "0")
        if not first.isdigit():
            raise ActionRefused(f"{first!a} is no number of nodes", status=422, first="a number, or 10%")
        nodes = tuple(
            PlannedNode(
                node=node, stage=0 if at < int(first) else 1, live_ref=f"refs/tags/{LIVE}", live_commit=self.refs[LIVE],
                live_release=f"{LIVE}-{self.refs[LIVE][:8]}", to_ref=f"refs/tags/{target}",
                to_commit=self.refs[target], holds=node not in self.lacking,
                why="its previous release, live until 28 Nov 00:07 UTC, put there by ada" if back and not ref else "",
                warning="its mirror does not have it yet" if node in self.lacking else "",
            )
            for at, node in enumerate(heard)
        )  # fmt: skip
        held = self.locks.get(asked.site)
        need = max(self.needs.get(asked.site, 0), 1 if asked.approval else 0)
        plan = PlanShown(
            site=asked.site, kind="rollback" if back else "deploy", ref=f"refs/tags/{target}" if ref else "",
            commit=self.refs[target] if ref else "", nodes=nodes, left_out=tuple(left), needs=need,
            needs_person=bool(self.needs.get(asked.site)), locked=f"locked by {held[0]}: {held[1]}" if held else "",
            running=self.running.get(asked.site, ""), comparison=_between(self.refs[LIVE], self.refs[target], target),
            scripts=(
                PlannedScript(step="migrate", path="deploy/migrate", text="#!/bin/sh\nset -eu\n./manage migrate\n"),
                PlannedScript(step="check", path="deploy/check", text="#!/bin/sh\ncurl -fsS localhost/health\n"),
            ),
            command=_command(asked), notes=(f"{target} was asked of the origin just now",),
            warnings=("web-1 failed with this ref 9 minutes ago",) if target == "v2.4.1" else (),
        )  # fmt: skip
        return attrs.evolve(plan, digest=hashlib.sha256(repr(plan).encode()).hexdigest())

    def _short(self, ref: str) -> str:
        return ref.removeprefix("refs/tags/")

    def _chosen(self, site: str, chosen: NodesAsked) -> list[str]:
        if not (chosen.select or chosen.nodes or chosen.everybody or chosen.exactly):
            raise ActionRefused("no nodes are chosen", "nothing never means all", status=422, select="choose nodes")
        known = self.nodes.get(site, ())
        wanted = [*chosen.nodes, *chosen.exactly, *([chosen.select] if chosen.select else [])]
        for name in wanted:
            if not any(fnmatchcase(node, name) for node in known):
                field = "select" if name == chosen.select else "nodes"
                raise ActionRefused(
                    f"no node of {site} matches {name[:80]!a}", "see its page", status=422,
                    **{field: f"nobody matches {name[:80]!a}"},
                )  # fmt: skip
        return [node for node in known if chosen.everybody or any(fnmatchcase(node, name) for name in wanted)]

    def begin(self, viewer: Viewer, asked: DeployAsked | RollbackAsked) -> ActionOutcome:
        self._note("begin", viewer, asked)
        require(viewer, asked.site, "stage", "plan a rollout")
        plan = self._plan(attrs.evolve(asked, plan=""))
        if asked.plan not in ("", self._plan_digest(asked)):
            raise ActionRefused("the plan came out otherwise", "look at it again", status=409, plan="it has changed")
        return self._start(viewer, plan, reason=asked.reason, override=asked.override_lock)

    def _plan_digest(self, asked: DeployAsked | RollbackAsked) -> str:
        return self._plan(attrs.evolve(asked, plan="", reason="")).digest

    def _start(self, viewer: Viewer, plan: PlanShown, *, reason: str = "", override: str = "") -> ActionOutcome:
        if plan.running:
            raise ActionRefused(
                f"rollout {plan.running} of {plan.site} runs since 03:08 UTC, started by ada", "look at it", status=409
            )
        if plan.locked and not override:
            raise ActionRefused(f"{plan.site} is {plan.locked}", "ask who holds it, or wait", status=409)
        if not plan.nodes:
            raise ActionRefused("no node is left to do it", "see why they are left out", status=409)
        if override:
            require(viewer, plan.site, "admin", "override a lock")
        rollout = f"r-{len(self.asked):04d}"
        if plan.needs:
            self.waiting[rollout] = self._proposed(viewer, rollout, plan, reason)
            return ActionOutcome(
                state="proposed", rollout=rollout, site=plan.site, detail=f"{plan.needs} must sign it first"
            )
        require(viewer, plan.site, "live", "start a rollout")
        self.running[plan.site] = rollout
        return ActionOutcome(
            state="started", rollout=rollout, site=plan.site, detail=f"Asked {plan.nodes[0].node} first."
        )

    def _proposed(self, viewer: Viewer, rollout: str, plan: PlanShown, reason: str) -> ProposalShown:
        end = self.now + timedelta(hours=1)
        mandate = RolloutApproved(
            id=f"mandate-{rollout}", source="web/ops-1", time=self.now, site=parse_site_name(plan.site),
            rollout=rollout, ref=parse_ref_name(plan.ref) if plan.ref else None,
            commit=parse_object_id(plan.commit) if plan.commit else None,
            nodes=tuple(parse_node_name(one.node) for one in plan.nodes),
            phases=("deploy",) if plan.ref else (), allow_rollback=True, not_before=self.now, not_after=end,
            requested_by=viewer.name, reason=reason,
        )  # fmt: skip
        names = ", ".join(one.node for one in plan.nodes)
        what = f"{self._short(plan.ref)}, commit {plan.commit}" if plan.ref else "back to each node's previous release"
        return ProposalShown(
            rollout=rollout, site=plan.site, kind=plan.kind, ref=plan.ref, commit=plan.commit,
            nodes=tuple(one.node for one in plan.nodes), not_before=self.now, not_after=end,
            requested_by=viewer.name, reason=reason, body=base64.b64encode(encode(mandate).body).decode(),
            text=(f"site {plan.site}", what, f"on {len(plan.nodes)} nodes: {names}",
                  f"from {self.now:%H:%M} to {end:%H:%M} UTC", "nodes may be told to go back"),
            missing=f"{plan.needs} of {plan.needs} people must sign", command=f"deploykit approve {rollout}",
        )  # fmt: skip

    def control(self, viewer: Viewer, rollout: str, asked: ControlAsked) -> ActionOutcome:
        self._note("control", viewer, rollout, asked)
        role: WebRole = "stage" if asked.kind in ("pause", "abort") and not asked.rollback else "live"
        site = self._site_of(rollout)
        require(viewer, site, role, f"{asked.kind} a rollout")
        back = " and go back" if asked.rollback else ""
        return ActionOutcome(state="asked", rollout=rollout, site=site, detail=f"It was asked to {asked.kind}{back}.")

    def _site_of(self, rollout: str) -> str:
        if rollout in self.waiting:
            return self.waiting[rollout].site
        return next((site for site, one in self.running.items() if one == rollout), "shop")

    def plan_retry(self, viewer: Viewer, rollout: str, *, approval: bool = False) -> PlanShown:
        self._note("plan_retry", viewer, rollout, *(["approval"] if approval else []))
        require(viewer, "shop", "stage", "plan a rollout")
        return self._retried(approval=approval)

    def _retried(self, *, approval: bool = False) -> PlanShown:
        chosen = NodesAsked(exactly=("web-1",))
        return self._plan(DeployAsked(site="shop", ref="v2.4.1", chosen=chosen, approval=approval))

    def retry(
        self, viewer: Viewer, rollout: str, plan: str = "", *, approval: bool = False, reason: str = ""
    ) -> ActionOutcome:
        self._note("retry", viewer, rollout, plan, *(["approval", reason] if approval else []))
        require(viewer, "shop", "stage" if approval else "live", "retry a rollout")
        if plan not in ("", self._retried(approval=approval).digest):
            raise ActionRefused("the plan came out otherwise", "look at it again", status=409, plan="it has changed")
        return self._start(viewer, self._retried(approval=approval), reason=reason)

    def begun(self, viewer: Viewer, rollout: str, page: PageRequested) -> RolloutDetail | None:
        found = self.unheard.get(rollout)
        return found if found is not None and viewer.sees(found.summary.site) else None

    def proposal(self, viewer: Viewer, rollout: str) -> ProposalShown | None:
        found = self.waiting.get(rollout)
        return found if found is not None and viewer.sees(found.site) else None

    def proposals(self, viewer: Viewer, site: str = "") -> Sequence[ProposalShown]:
        return [one for one in self.waiting.values() if site in ("", one.site) and viewer.sees(one.site)][::-1]

    def sign(self, viewer: Viewer, rollout: str, signature: str) -> ActionOutcome:
        self._note("sign", viewer, rollout, signature)
        found = self.proposal(viewer, rollout)
        if found is None:
            raise ActionRefused(f"no rollout {rollout[:80]!a} waits", "see the list", status=404)
        require(viewer, found.site, "stage", "sign a rollout")
        if not signature.isascii() or len(signature) < 8:
            raise ActionRefused("that is no signature", "paste the whole line", status=422, signature="not a signature")
        given = SignatureShown(fingerprint=f"SHA256:{signature[:8]}", signer=viewer.name)
        signed = (*found.signatures, given)
        if len(signed) < self.needs.get(found.site, 1):
            self.waiting[rollout] = attrs.evolve(found, signatures=signed, missing="1 more person must sign")
            return ActionOutcome(state="proposed", rollout=rollout, site=found.site, detail="1 more person must sign.")
        del self.waiting[rollout]
        self.running[found.site] = rollout
        return ActionOutcome(state="started", rollout=rollout, site=found.site, detail="All have signed: it began.")

    def withdraw(self, viewer: Viewer, rollout: str) -> ActionOutcome:
        self._note("withdraw", viewer, rollout)
        found = self.proposal(viewer, rollout)
        if found is None:
            raise ActionRefused(f"no rollout {rollout[:80]!a} waits", "see the list", status=404)
        require(viewer, found.site, "stage", "withdraw a proposal")
        del self.waiting[rollout]
        return ActionOutcome(state="done", rollout=rollout, site=found.site, detail="It is withdrawn.")

    # -- locks, messages of others, presence ---------------------------------------------------------------------------

    def lock(self, viewer: Viewer, asked: LockAsked) -> ActionOutcome:
        self._note("lock", viewer, asked)
        require(viewer, asked.site, "live", "lock a site")
        if not asked.reason.strip():
            raise ActionRefused("a lock says why", "give a reason", status=422, reason="say why, for the others")
        self.locks[asked.site] = (viewer.name, asked.reason)
        held = [node for node in self.nodes.get(asked.site, ()) if node not in self.silent]
        missing = tuple(f"{node} has not answered" for node in self.silent)
        return ActionOutcome(state="done", site=asked.site, detail=f"{', '.join(held)} hold the lock.", notes=missing)

    def unlock(self, viewer: Viewer, site: str, reason: str = "") -> ActionOutcome:
        self._note("unlock", viewer, site, reason)
        holder = self.locks.get(site, ("", ""))[0]
        require(viewer, site, "live" if holder in ("", viewer.name) else "admin", "unlock what somebody else locked")
        self.locks.pop(site, None)
        return ActionOutcome(state="done", site=site, detail="The lock is lifted.")

    def state(self, viewer: Viewer, site: str) -> LockState:
        self._note("state", viewer, site)
        require(viewer, site, "live", "lock a site")
        return attrs.evolve(self.lock_state, site=site)

    def relay(self, viewer: Viewer, body: bytes, signature: str) -> ActionOutcome:
        self._note("relay", viewer, body, signature)
        return ActionOutcome(state="done", detail="It was published as it came.")

    def here(self, viewer: Viewer, site: str, what: str) -> Sequence[PersonPresent]:
        self._note("here", viewer, site, what)
        return [one for one in self.present if one.name != viewer.name]


def _between(old: str, new: str, ref: str) -> CommitComparison:
    if old == new:
        return CommitComparison(repo=_REPO, old=parse_object_id(old), new=parse_object_id(new), new_ref=ref)
    commit = ComparedCommit(
        id=parse_object_id(new), subject="Basket: count items once", author="Ada", time=NOW - timedelta(hours=1)
    )
    return CommitComparison(
        repo=_REPO, old=parse_object_id(old), new=parse_object_id(new), new_ref=ref, ahead=(commit,), ahead_count=1,
        bases=(parse_object_id(old),), counts={"changed": 1, "added": 1},
        files=(ChangedFile(path="basket/count.py", kind="changed"),
               ChangedFile(path="migrations/0043_basket_count.sql", kind="added", new_mode="100644")),
    )  # fmt: skip


def _command(asked: DeployAsked | RollbackAsked) -> str:
    words = ["deploykit", "rollback" if isinstance(asked, RollbackAsked) else "deploy", asked.site]
    if isinstance(asked, DeployAsked):
        words += ["--ref", asked.ref]
    for node in (*asked.chosen.nodes, *asked.chosen.exactly):
        words += ["--node", node]
    if asked.chosen.select:
        words += ["--select", asked.chosen.select]
    return shlex.join([*words, *(["--all"] if asked.chosen.everybody else [])])


__all__ = ["BEFORE", "LIVE", "NODES", "PASSWORD", "REFS", "Asked", "FixedAccess", "FixedActions"]
