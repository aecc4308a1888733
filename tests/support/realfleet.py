"""Real agents for a rollout: one origin, an agent for each node, and a desk where an operator sits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs

from deploykit.bus import Bus
from deploykit.fleet.plan import RolloutOptions
from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName, ObjectId, SiteName
from deploykit.operations.rollout import RolloutResult, start_rollout
from deploykit.operations.rolloutplan import PlannedRollout, plan_deploy
from deploykit.settings import (
    BusSettings,
    GrantSettings,
    NodeSiteSettings,
    OutboxSettings,
    RepositorySettings,
    Settings,
    SiteSettings,
    TrustSettings,
)
from deploykit.trust.keyfiles import generate_key, trust
from tests.support.node import SHOP, NodeAgent, Origin
from tests.support.rollouts import Seen


def topics_below(name: str) -> TopicMap:
    """Return topics that no other test on the same broker uses."""
    named = {
        field.name: f"/topic/{name}.{field.name}"
        for field in attrs.fields(TopicMap)
        if field.name != "notices" and not field.name.startswith("build_")
    }
    return TopicMap(**named)  # type: ignore[arg-type]  # all but the map of notices


class RealFleet:
    """Agents that run while its `with` block does.

    Args:
        root: for everything.
        address: of the broker.
        nodes: their names.
        topics: where messages go.
    """

    def __init__(self, root: Path, address: str, nodes: Iterable[str], *, topics: TopicMap | None = None) -> None:
        self.root = root
        self.origin = Origin(root / "git")
        signers = root / "allowed_signers"
        self.nodes = tuple(NodeName(node) for node in nodes)
        trust(signers, "ops@example.org", generate_key(root / "operator.key").public_blob)
        for node in self.nodes:
            trust(signers, str(node), generate_key(root / f"{node}.key").public_blob)
        types = ("deploy.requested", "rollout.abort", "node.queried")
        self.desk = Settings(
            node=NodeName("desk"),
            state=root / "desk",
            broker=BusSettings(address=address, backoff_max=0.5),
            topics=topics or TopicMap(),
            trust=TrustSettings(
                allowed_signers=signers, grants=(GrantSettings(principal="ops@example.org", types=types),)
            ),
            signing_key=root / "operator.key",
            repositories={SHOP: RepositorySettings(url=str(self.origin.path))},
        )
        self._stack = contextlib.ExitStack()

    def settings_of(self, node: NodeName) -> Settings:
        """Return the settings of one node's agent."""
        home = self.root / node
        return attrs.evolve(
            self.desk,
            node=node,
            state=home / "state",
            outbox=OutboxSettings(path=home / "spool"),
            signing_key=self.root / f"{node}.key",
            sites={SiteName("shop"): NodeSiteSettings(path=home / "site", repo=SHOP, release=SiteSettings())},
            reconcile_every=3600.0,
            fetch_spread=0.0,
        )

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            agents = [stack.enter_context(NodeAgent(self.settings_of(node))) for node in self.nodes]
            for agent in agents:
                agent.ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def push(self, tag: str, **scripts: str) -> ObjectId:
        """Push a tag whose page says so; each script is `NAME="body"`."""
        files = {f"deploy/{name.replace('_', '-')}": f"#!/bin/sh\n{body}\n" for name, body in scripts.items()}
        return self.origin.push(tag=tag, files={"index.html": f"{tag}\n", **files})

    def planned(self, tag: str, nodes: Iterable[str] | None = None, **options: Any) -> PlannedRollout:
        """Return the rollout of a tag to nodes, or to all."""
        chosen = list(nodes if nodes is not None else self.nodes)
        return plan_deploy(self.desk, "shop", tag, chosen, RolloutOptions(**{"timeout": 120.0, **options}))

    def run(self, planned: PlannedRollout, seen: Seen | None = None) -> RolloutResult:
        """Run a rollout to its end."""
        with Bus(self.desk.broker, client_id="desk") as bus:
            assert bus.wait_connected(60)
            return start_rollout(planned, bus, observer=seen)

    def live(self) -> list[str]:
        """Return what each node's page says; empty where there is none."""
        pages = [self.root / node / "site" / "current" / "index.html" for node in self.nodes]
        return [page.read_text().strip() if page.exists() else "" for page in pages]

    def releases(self, node: str) -> int:
        """Return how many releases are on a node's disk."""
        directory = self.root / node / "site" / "releases"
        return len(list(directory.iterdir())) if directory.exists() else 0
