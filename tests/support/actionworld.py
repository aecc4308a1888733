"""A console's actions over nodes that answer from plain values, real keys, a real origin, and rollouts that only stand.

    world = ActionWorld(tmp_path)
    world.rollouts.begin(LIVE, world.deploy())
    assert world.desk.started

`world.nodes` is what nodes say, and `world.desk` what was begun: both may be changed at any time.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import attrs

from deploykit.bus import Bus
from deploykit.config import load_settings
from deploykit.errors import RolloutBusy, UsageError
from deploykit.fleet.controls import ControlKind, ControlRequest
from deploykit.fleet.facts import NodeFacts
from deploykit.fleet.journal import EventRecord, JournalContents
from deploykit.fleet.journalhead import JournalHead
from deploykit.fleet.mandates import HeldMandate
from deploykit.fleet.selection import Selection
from deploykit.messages import NodeDescribed, NodeDetail, SiteState
from deploykit.messages.site import SiteRelease
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.operations.keychoice import KeyChoice
from deploykit.operations.nodes import FoundNodes
from deploykit.operations.rolloutplan import PlannedRollout
from deploykit.settings import Settings
from deploykit.trust.keyfiles import generate_key, trust
from deploykit.trust.signature import HEADER, SigningKey, sign
from deploykit.web.actions.actionports import ActionPorts
from deploykit.web.actions.asked import DeployAsked, NodesAsked
from deploykit.web.actions.auditing import ActionAudit
from deploykit.web.actions.hostport import ConsoleRollout
from deploykit.web.actions.rollouts import ConsoleRollouts
from deploykit.web.projection.activityviews import AuditView, RefView
from deploykit.web.projection.views import NodeSummary, SiteOnNode, SiteSummary
from deploykit.web.viewer import RoleGrant, Viewer
from deploykit.wire import Frame
from tests.support.fixedqueries import FixedQueries
from tests.support.node import Origin

LOOK: Final = Viewer(name="lou", grants=(RoleGrant(sites="*", role="look"),))
STAGE: Final = Viewer(name="stan", grants=(RoleGrant(sites="*", role="stage"),))
LIVE: Final = Viewer(name="liv", grants=(RoleGrant(sites="*", role="live"),))
ADMIN: Final = Viewer(name="ada", grants=(RoleGrant(sites="*", role="admin"),))
NOBODY: Final = Viewer(name="nel", grants=(RoleGrant(sites="docs", role="admin"),))
SHOP: Final = SiteName("shop")
V1: Final = RefName("refs/tags/v1")
PEOPLE: Final = ("ann", "bob", "eve", "desk")


@attrs.define(kw_only=True)
class StandingRollouts:
    """A desk that keeps rollouts in memory and runs none: `RolloutDesk`."""

    now: Callable[[], datetime]
    kept: dict[str, ConsoleRollout] = attrs.Factory(dict)
    asked: list[tuple[str, ControlRequest]] = attrs.Factory(list)
    error: Exception | None = None
    looked_up: list[str] = attrs.Factory(list)

    @property
    def started(self) -> list[str]:
        """The rollouts that were begun."""
        return [each.rollout for each in self.kept.values() if each.state == "running"]

    def start(self, planned: PlannedRollout, by: str) -> None:
        self._fail()
        running = self.running(planned.plan.site)
        if running is not None:
            raise RolloutBusy(f"rollout {running.rollout} runs")
        self._keep(planned, planned.mandate, by, "running")

    def start_approved(self, rollout: str) -> None:
        self._fail()
        kept = self.kept[rollout]
        if kept.state != "proposed":
            raise UsageError(f"rollout {rollout} does not wait")
        running = self.running(kept.head.plan.site)
        if running is not None:
            raise RolloutBusy(f"rollout {running.rollout} runs")
        self.kept[rollout] = attrs.evolve(kept, state="running", begun=self.now().timestamp())

    def propose(self, planned: PlannedRollout, mandate: HeldMandate, by: str) -> None:
        self._fail()
        self._keep(planned, mandate, by, "proposed")

    def change_mandate(self, rollout: str, change: Callable[[HeldMandate], HeldMandate]) -> ConsoleRollout:
        kept = self.kept[rollout]
        assert kept.head.mandate is not None
        made = attrs.evolve(kept, head=attrs.evolve(kept.head, mandate=change(kept.head.mandate)))
        self.kept[rollout] = made
        return made

    def withdraw(self, rollout: str) -> None:
        self.end(rollout, "withdrawn")

    def control(self, rollout: str, kind: ControlKind, by: str, *, rollback: bool = False) -> None:
        self._fail()
        self.asked.append((rollout, ControlRequest(kind=kind, by=by, rollback=rollback)))

    def find(self, rollout: str) -> ConsoleRollout | None:
        self.looked_up.append(rollout)
        return self.kept.get(rollout)

    def running(self, site: str) -> ConsoleRollout | None:
        return next((k for k in self.kept.values() if k.head.plan.site == site and k.state == "running"), None)

    def newest(self, site: str) -> ConsoleRollout | None:
        begun = [k for k in self.kept.values() if k.head.plan.site == site and k.state in ("running", "ended")]
        return max(begun, key=lambda each: each.begun, default=None)

    def proposals(self, site: str = "") -> Sequence[ConsoleRollout]:
        waiting = [k for k in self.kept.values() if k.state == "proposed" and site in ("", k.head.plan.site)]
        return tuple(reversed(waiting))

    def contents(self, rollout: str) -> JournalContents:
        return JournalContents(head=self.kept[rollout].head, records=self.records.get(rollout, ()))

    records: dict[str, tuple[EventRecord, ...]] = attrs.Factory(dict)

    def end(self, rollout: str, state: Any = "ended") -> None:
        """Let a rollout end."""
        self.kept[rollout] = attrs.evolve(self.kept[rollout], state=state)

    def _keep(self, planned: PlannedRollout, mandate: HeldMandate | None, by: str, state: Any) -> None:
        begun = self.now().timestamp()
        head = JournalHead(
            plan=planned.plan,
            begun=begun,
            evidence=planned.evidence,
            without_build=planned.without_build,
            override_lock=planned.override_lock,
            mandate=mandate,
            asks=planned.asks,
        )
        self.kept[planned.plan.rollout] = ConsoleRollout(head=head, state=state, requested_by=by, begun=begun)

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


@attrs.define(slots=False)
class HearingBus:
    """A bus that keeps what is published: destination and frame."""

    sent: list[tuple[str, Frame]] = attrs.Factory(list)

    def publish(self, destination: str, frame: Frame, *, timeout: float) -> None:
        """Keep a frame."""
        self.sent.append((destination, frame))


@attrs.frozen
class _People:
    """Keys of people in files, and who is trusted: the same for all tests of a process."""

    root: Path
    keys: dict[str, SigningKey]


_ORIGINS: list[tuple[Origin, ObjectId, ObjectId]] = []
_PEOPLE: list[_People] = []


def _pushed(root: Path) -> tuple[Origin, ObjectId, ObjectId]:
    """Return an origin with the tags v1 and v2, and their commits."""
    origin = Origin(root)
    v1 = origin.push(tag="v1", files={"index.html": "v1\n"})
    v2 = origin.push(tag="v2", files={"index.html": "v2\n", "deploy/post-deploy": "#!/bin/sh\necho hi\n"})
    return origin, v1, v2


def _shared(root: Path) -> tuple[Origin, ObjectId, ObjectId]:
    if not _ORIGINS or not _ORIGINS[0][0].path.exists():
        _ORIGINS[:] = [_pushed(Path(tempfile.mkdtemp(prefix="origin-", dir=root.parent)))]
    return _ORIGINS[0]


def _people(root: Path) -> _People:
    if not _PEOPLE or not _PEOPLE[0].root.exists():
        home = Path(tempfile.mkdtemp(prefix="people-", dir=root.parent))
        keys = {name: generate_key(home / name) for name in (*PEOPLE, "mallory")}
        for name in PEOPLE:
            trust(home / "allowed_signers", name, keys[name].public_blob)
        _PEOPLE[:] = [_People(home, keys)]
    return _PEOPLE[0]


class ActionWorld:
    """See above.

    Args:
        root: an empty directory.
        nodes: how many have the shop, `web1` to `webN`.
        site: lines for `[sites.shop]`; None: the console does not know the site.
        more: further lines of its settings.
        own_origin: the test changes the origin; else all tests of a process read one.
    """

    def __init__(
        self, root: Path, *, nodes: int = 3, site: str | None = None, more: str = "", own_origin: bool = False
    ) -> None:
        self.root = root
        self.moment: datetime | None = None
        made = _pushed(root / "git") if own_origin else _shared(root)
        self.origin, self.v1, self.v2 = made
        self._people = _people(root)
        self.keys = self._people.keys
        shutil.copy(self._people.root / "allowed_signers", root / "allowed_signers")
        self.settings = self._load(site, more)
        self.nodes: dict[str, NodeDescribed] = {
            f"web{at}": self.node(f"web{at}", live=V1, commit=self.v1) for at in range(1, nodes + 1)
        }
        self.silent: set[str] = set()
        self.questions: list[tuple[Selection, tuple[NodeDetail, ...]]] = []
        self.queries = FixedQueries(
            site_list=(SiteSummary(site="shop", repo="shop"),),
            node_list=tuple(NodeSummary(node=name, sites=(SiteOnNode(site="shop", node=name),)) for name in self.nodes),
            ref_list=tuple(
                RefView(repo="shop", ref=f"refs/tags/{tag}", commit=commit, holders=nodes, expected=nodes)
                for tag, commit in (("v1", self.v1), ("v2", self.v2))
            ),
        )
        self.bus = HearingBus()
        self.desk = StandingRollouts(now=self.now)
        self.lines: list[AuditView] = []
        self.ports = ActionPorts(
            settings=self.settings,
            queries=self.queries,
            kept=self.desk,
            bus=cast("Bus", self.bus),
            ask=self.ask,
            key=KeyChoice(),
            audit=ActionAudit(self.lines.append, now=self.now),
            now=self.now,
        )
        self.rollouts = ConsoleRollouts(self.ports)

    def now(self) -> datetime:
        """Return `moment`, or the time of this machine."""
        return self.moment or datetime.now(UTC)

    def node(
        self, name: str, *, live: RefName | None = None, commit: ObjectId | None = None, **state: Any
    ) -> NodeDescribed:
        """Return what a node says that has the shop."""
        site = SiteState(
            site=SHOP,
            repo=RepoName("shop"),
            release=f"{live.rpartition('/')[2]}-1" if live is not None else "",
            ref=live,
            commit=commit,
            since=datetime(2026, 11, 1, tzinfo=UTC),
            **state,
        )
        return NodeDescribed(source=f"agent/{name}", node=NodeName(name), sites=(site,), facts={"env": "live"})

    def back(self, ref: RefName, commit: ObjectId) -> SiteRelease:
        """Return a release to go back to."""
        return SiteRelease(release=f"{ref.rpartition('/')[2]}-0", ref=ref, commit=commit)

    def ask(
        self, selection: Selection, details: Sequence[NodeDetail], site: SiteName | None, history: int
    ) -> FoundNodes:
        """Answer as `find_nodes` does, from `nodes`."""
        selection.check()
        self.questions.append((selection, tuple(details)))
        answers = [self.nodes[name] for name in sorted(self.nodes) if name not in self.silent]
        chosen = tuple(each for each in answers if selection.matches(NodeFacts.of_described(each)))
        unlisted = selection
        if selection.listed is not None:
            chooses = selection.identities or selection.selects
            unlisted = attrs.evolve(selection, listed=None, everybody=not chooses)
        names_chosen = {each.node for each in chosen}
        others = [each for each in answers if each.node not in names_chosen and unlisted is not selection]
        strangers = tuple(each for each in others if unlisted.matches(NodeFacts.of_described(each)))
        heard = {each.node for each in answers}
        names = selection.candidates or ()
        return FoundNodes(
            nodes=chosen,
            strangers=strangers,
            silent=tuple(name for name in names if name not in heard),
            answered=len(answers),
        )

    def deploy(self, ref: str = "v2", **asked: Any) -> DeployAsked:
        """Return what somebody asks for: a ref for all nodes."""
        asked.setdefault("chosen", NodesAsked(everybody=True))
        return DeployAsked(site="shop", ref=ref, **asked)

    def signature(self, name: str, body: bytes) -> str:
        """Return the header of somebody's signature under a body."""
        from deploykit.operations.mandatefiles import mandate_frame

        return sign(mandate_frame(body), self.keys[name]).headers[HEADER]

    def decisions(self) -> list[tuple[str, str]]:
        """Return what the audit has: the action, and what was decided."""
        return [(line.action, line.decision) for line in self.lines]

    def _load(self, site: str | None, more: str) -> Settings:
        root, people = self.root, self._people.root
        known = f'[sites.shop]\npath = "{root}/site"\nrepo = "shop"\n{site}\n' if site is not None else ""
        file = root / "deploykit.toml"
        file.touch(0o600)
        file.write_text(
            f'node = "desk"\nstate = "{root}/state"\nsigning_key = "{people}/desk"\n{more}\n'
            f'[trust]\nallowed_signers = "{root}/allowed_signers"\n'
            "grants = [\n"
            '  { principal = "desk", types = ["rollout.run", "deploy.requested", "site.locked"] },\n'
            '  { principal = "ann", types = ["rollout.approved", "site.locked", "access.grant-requested"] },\n'
            '  { principal = "bob", types = ["rollout.approved"] },\n'
            "]\n"
            f'[repositories.shop]\nurl = "{self.origin.path}"\n{known}'
        )
        return load_settings(file)


__all__ = ["ADMIN", "LIVE", "LOOK", "NOBODY", "PEOPLE", "SHOP", "STAGE", "V1", "ActionWorld", "StandingRollouts"]
