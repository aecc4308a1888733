"""A way from push to release as a recorder would have it: real messages, encoded and signed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from deploykit.fleet.recordformat import RecordedMessage
from deploykit.fleet.trace import FoundTrace, Trace, find_trace
from deploykit.fleet.tracekeys import keys_of
from deploykit.fleet.tracetrust import TraceTrust
from deploykit.messages import (
    BuildFinished,
    BuildRequested,
    BuildStarted,
    Commit,
    DeployProgressed,
    DeployReported,
    DeployRequested,
    Message,
    MirrorUpdated,
    RefUpdated,
    RolloutReported,
    SiteRelease,
)
from deploykit.messages.topics import TopicMap, topic_of
from deploykit.names import ZERO_ID, NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.trust.signature import SigningKey, sign
from deploykit.wire import encode

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
SHOP, SITE = RepoName("shop"), SiteName("shop")
V1 = RefName("refs/tags/v1")
C1 = ObjectId("c1" * 20)
WEB = tuple(NodeName(f"web{number}") for number in (1, 2, 3))


class Way:
    """Makes the messages of one rollout, each a second after the one before.

    Args:
        commit: what goes live.
        ref: its tag.
        name: of the ids, so that several ways do not share them.
        keys: principal -> key, of those who sign.
        start: when the push is recorded.
    """

    def __init__(
        self,
        commit: ObjectId = C1,
        ref: RefName = V1,
        *,
        name: str = "a",
        keys: dict[str, SigningKey] | None = None,
        start: datetime = START,
    ) -> None:
        self.commit, self.ref, self.name = commit, ref, name
        self._keys = keys or {}
        self._now = start

    def record(self, message: Message, *, by: str = "", after: float = 1.0) -> RecordedMessage:
        """Return a message as it is recorded, `after` seconds after the one before."""
        self._now += timedelta(seconds=after)
        frame = encode(attrs.evolve(message, time=self._now))
        if by in self._keys:
            frame = sign(frame, self._keys[by])
        return RecordedMessage(
            received=self._now, destination=topic_of(message, TopicMap()), headers=frame.headers, body=frame.body
        )

    def push(self, **changes: Any) -> RefUpdated:
        made = RefUpdated(
            id=f"{self.name}-push", correlation_id=f"{self.name}-push", repo=SHOP, ref=self.ref, old=ZERO_ID,
            new=self.commit, commits=(Commit(id=self.commit, author="ann", time="", message="Fix"),),
        )  # fmt: skip
        return attrs.evolve(made, **changes)

    def build(self, kind: type[Any], part: str, **changes: Any) -> Any:
        return kind(
            id=f"{self.name}-{part}", correlation_id=f"{self.name}-push", job="shop-tests", repo=SHOP, ref=self.ref,
            commit=self.commit, **changes,
        )  # fmt: skip

    def builds(self) -> list[Message]:
        return [
            self.build(BuildRequested, "queued"),
            self.build(BuildStarted, "started", number=12),
            self.build(BuildFinished, "finished", number=12, outcome="success"),
        ]

    def mirror(self, node: NodeName) -> MirrorUpdated:
        return MirrorUpdated(
            id=f"{self.name}-{node}-mirror", correlation_id=f"{self.name}-push", node=node, repo=SHOP, ref=self.ref,
            old=ZERO_ID, new=self.commit, outcome="updated",
        )  # fmt: skip

    def rollout(self, state: Any, number: int = 0) -> RolloutReported:
        return RolloutReported(
            id=f"{self.name}-{state}-{number}", site=SITE, rollout=f"{self.name}-rollout", kind="deploy", ref=self.ref,
            commit=self.commit, state=state,
        )  # fmt: skip

    def command(self, phase: Any, *nodes: NodeName) -> DeployRequested:
        return DeployRequested(
            id=f"{self.name}-{phase}-{'-'.join(nodes)}", site=SITE, ref=self.ref, commit=self.commit, audience=nodes,
            expires=START + timedelta(minutes=30), phase=phase, rollout=f"{self.name}-rollout",
        )  # fmt: skip

    def progress(self, command: DeployRequested, node: NodeName, number: int, state: Any = "began") -> DeployProgressed:
        return DeployProgressed(
            id=f"{command.id}-{node}-{number}", node=node, site=SITE, request=command.id, rollout=command.rollout,
            phase=command.phase, number=number, step=f"step-{number // 2}", state=state,
        )  # fmt: skip

    def report(self, command: DeployRequested, node: NodeName, outcome: Any = "success") -> DeployReported:
        made = SiteRelease(release="000001-v1", ref=self.ref, commit=self.commit)
        live: dict[str, Any] = (
            {"ref": self.ref, "commit": self.commit, "release": "000001-v1"} if command.phase != "prepare" else {}
        )
        return DeployReported(
            id=f"{command.id}-{node}-report", node=node, site=SITE, request=command.id, phase=command.phase,
            outcome=outcome, live_known=True, target=made, **(live if command.phase != "prepare" else {}),
        )  # fmt: skip

    def whole(self, nodes: Iterable[NodeName] = WEB) -> list[RecordedMessage]:
        """Return all messages of a rollout in two phases, in order."""
        nodes = tuple(nodes)
        found = [self.record(self.push())]
        found += [self.record(each, by="ci") for each in self.builds()]
        found += [self.record(self.mirror(node)) for node in nodes]
        found.append(self.record(self.rollout("planned"), by="ops"))
        for phase, state in (("prepare", "preparing"), ("activate", "rolling")):
            found.append(self.record(self.rollout(state), by="ops"))
            for node in nodes:
                command = self.command(phase, node)
                found.append(self.record(command, by="ops"))
                for number, step in enumerate(("began", "output", "done")):
                    found.append(self.record(self.progress(command, node, number, step), by=node, after=0.1))
                found.append(self.record(self.report(command, node), by=node))
        found.append(self.record(self.rollout("succeeded"), by="ops"))
        return found


def find(text: str, records: Iterable[RecordedMessage], trust: TraceTrust | None = None) -> FoundTrace:
    """Search for a trace in these records."""
    pairs = [(keys, record) for record in records if (keys := keys_of(record)) is not None]
    return find_trace(text, lambda: pairs, trust)


def traced(text: str, records: Iterable[RecordedMessage], trust: TraceTrust | None = None) -> Trace:
    """Return the trace, which must be there."""
    found = find(text, records, trust)
    assert found.trace is not None, found
    return found.trace


def rows(trace: Trace) -> list[tuple[str, str, str]]:
    """Return kind, subject and state of each station."""
    return [(one.kind, one.subject, one.state) for one in trace.stations]
