"""Nodes that stand in for agents: they verify commands and sign reports for real, and do what a test tells them to."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path

import attrs

from deploykit.bus import Bus, Delivery
from deploykit.errors import DeploykitError
from deploykit.messages import DeployReported, DeployRequested, Message, RolloutAbort, SiteRelease, utc_now
from deploykit.names import NodeName, ObjectId, RefName, SiteName
from deploykit.settings import BusSettings, GrantSettings, Settings, TrustSettings
from deploykit.trust.check import Trust
from deploykit.trust.keyfiles import generate_key, trust
from deploykit.trust.signature import SigningKey, copy_digest, sign
from deploykit.wire import Frame, encode
from tests.support.wait import wait_until

SHOP = SiteName("shop")
OLD = SiteRelease(release="1-old", ref=RefName("refs/tags/v0"), commit=ObjectId("0" * 39 + "1"))
#: What a node does with a command: an outcome, or nothing (`silent`), or it acts and its report is lost (`lost`).
Behaviour = str


def names(count: int) -> tuple[NodeName, ...]:
    """Return `web1`, `web2` …"""
    return tuple(NodeName(f"web{number}") for number in range(1, count + 1))


@attrs.define(kw_only=True, slots=True)
class StandIn:
    """One node.

    Args:
        behaves: phase -> outcome; anything else is a success.
        acted: the commands that it acted on: id and phase, in order.
        heard: how many copies of each command came.
    """

    name: NodeName
    key: SigningKey
    trust: Trust
    behaves: dict[str, Behaviour] = attrs.field(factory=dict)
    live: SiteRelease | None = OLD
    previous: SiteRelease | None = None
    prepared: SiteRelease | None = None
    acted: list[tuple[str, str]] = attrs.field(factory=list)
    heard: Counter[str] = attrs.field(factory=Counter)
    bodies: dict[str, set[bytes]] = attrs.field(factory=dict)
    answers: dict[str, DeployReported] = attrs.field(factory=dict)

    def obey(self, request: DeployRequested, frame: Frame) -> tuple[DeployReported | None, bool]:
        """Return the report on a command, and whether the command is new."""
        self.heard[request.id] += 1
        self.bodies.setdefault(request.id, set()).add(frame.body)
        if request.id in self.answers:
            return self.answers[request.id], False
        behaviour = self.behaves.get(request.phase, "success")
        if behaviour == "silent":
            return None, False
        self.acted.append((request.id, request.phase))
        outcome = "success" if behaviour in ("lost", "success") else behaviour
        target = SiteRelease(release=f"2-{request.commit[:8]}", ref=request.ref, commit=request.commit)
        if outcome == "success":
            self._act(request.phase, target)
        report = DeployReported(
            node=self.name,
            site=request.site,
            request=request.id,
            answers=copy_digest(frame),
            phase=request.phase,
            outcome=outcome,  # type: ignore[arg-type]
            release=self.live.release if self.live else "",
            ref=self.live.ref if self.live else None,
            commit=self.live.commit if self.live else None,
            live_known=True,
            target=target,
            previous=self.previous,
            detail="" if outcome == "success" else f"{request.phase} was told to end so",
        )
        self.answers[request.id] = report
        return report, True

    def _act(self, phase: str, target: SiteRelease) -> None:
        match phase:
            case "prepare":
                self.prepared = target
            case "discard":
                self.prepared = None
            case "rollback":
                self.live, self.previous = target, None
            case _:
                self.previous, self.live, self.prepared = self.live, target, None


def desk_settings(root: Path, address: str) -> Settings:
    """Return the settings of who asks the nodes; the files are those of `StandIns`."""
    grants = (GrantSettings(principal="ops@example.org", types=("deploy.requested", "rollout.abort")),)
    return Settings(
        node=NodeName("desk"),
        state=root / "state",
        broker=BusSettings(address=address, backoff_initial=0.05, backoff_max=0.2),
        trust=TrustSettings(allowed_signers=root / "allowed_signers", grants=grants),
        signing_key=root / "operator.key",
    )


class StandIns:
    """Several nodes on one bus, and the settings of who asks them.

    Args:
        root: for key files.
        address: of the broker.
        nodes: their names.
        behaves: node -> phase -> outcome.
    """

    def __init__(
        self,
        root: Path,
        address: str,
        nodes: Iterable[NodeName],
        *,
        behaves: Mapping[str, Mapping[str, Behaviour]] | None = None,
    ) -> None:
        signers = root / "allowed_signers"
        self.operator = generate_key(root / "operator.key")
        trust(signers, "ops@example.org", self.operator.public_blob)
        keys = {}
        for node in nodes:
            keys[node] = SigningKey.generate()
            trust(signers, str(node), keys[node].public_blob)
        self.settings = desk_settings(root, address)
        self.nodes = {
            node: StandIn(
                name=node,
                key=key,
                trust=Trust.from_settings(self.settings.trust, node),
                behaves=dict((behaves or {}).get(node, {})),
            )
            for node, key in keys.items()
        }
        self.aborts: list[RolloutAbort] = []
        #: The frame of each command, as a node received it.
        self.frames: dict[str, Frame] = {}
        self.expires: dict[str, datetime] = {}
        #: Is called with each command before a node hears of it; a test may hold the node up.
        self.before: Callable[[NodeName, DeployRequested], object] = lambda node, request: None
        self._lock = threading.Lock()

    def __enter__(self) -> StandIns:
        topics = self.settings.topics
        self.bus = Bus(self.settings.broker, client_id="stand-ins").start()
        subscriptions = [self.bus.subscribe(topics.deploy, self._broadcast)]
        subscriptions += [self.bus.subscribe(topics.deploy_to(node), self._command) for node in self.nodes]
        for subscription in subscriptions:
            assert subscription.wait_active(60)
        return self

    def __exit__(self, *_: object) -> None:
        self.bus.stop()

    def reset(self, behaves: Mapping[str, Mapping[str, Behaviour]]) -> None:
        """Put every node back to the beginning."""
        with self._lock:
            for node, stand in self.nodes.items():
                stand.behaves = dict(behaves.get(node, {}))
                stand.live, stand.previous, stand.prepared = OLD, None, None
                for books in (stand.acted, stand.heard, stand.bodies, stand.answers):
                    books.clear()
            self.aborts.clear()

    def report(self, report: Message, key: SigningKey | None) -> None:
        """Publish a report, signed by a key."""
        frame = encode(report)
        self.bus.publish_nowait(self.settings.topics.report, sign(frame, key) if key is not None else frame)

    def acted(self, node: str) -> list[str]:
        """Return the phases that a node acted on."""
        return [phase for _, phase in self.nodes[NodeName(node)].acted]

    def live(self) -> dict[str, str]:
        """Return each node's live commit."""
        return {node: stand.live.commit or "" if stand.live else "" for node, stand in self.nodes.items()}

    def wait_acted(self, node: str, phase: str, timeout: float = 60.0) -> None:
        """Wait until a node has acted on a phase."""
        wait_until(lambda: phase in self.acted(node), f"{phase} of {node}", timeout)

    def _broadcast(self, delivery: Delivery) -> None:
        message = delivery.message
        if isinstance(message, RolloutAbort):
            self.aborts.append(message)

    def _command(self, delivery: Delivery) -> None:
        node = self.nodes[NodeName(delivery.destination.rpartition(".")[2])]
        frame = Frame(delivery.headers, delivery.body)
        try:
            verified = node.trust.check(frame, utc_now(), destination=delivery.destination)
            verified.authorize(utc_now())
        except DeploykitError:
            return
        request = verified.message
        if not isinstance(request, DeployRequested):
            return
        self.frames[request.id] = frame
        self.expires[request.id] = request.expires
        self.before(node.name, request)
        with self._lock:
            report, new = node.obey(request, frame)
        if report is not None and not (new and node.behaves.get(request.phase) == "lost"):
            self.report(report, node.key)
