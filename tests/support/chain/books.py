"""What was said in a chain, and whether it adds up.

The books are a durable subscriber of every topic, so that they miss nothing while a broker is away. They count each
message id once: a message may be delivered twice, and may not be said twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import attrs

from deploykit.bus import Bus, Delivery, Subscription
from deploykit.messages import BuildFinished, BuildRequested, DeployReported, DeployRequested, Message, RefUpdated
from deploykit.messages.topics import TopicMap
from deploykit.names import ObjectId
from deploykit.trust.keyfiles import load_allowed_signers
from deploykit.trust.signature import HEADER, Signers, verify
from deploykit.trust.signaturerules import SignatureRules
from deploykit.wire import Frame
from tests.support.stubjobs import StubBuild

M = TypeVar("M", bound=Message)

#: Who signs build results.
CI = "ci@chain"


class ChainBooks:
    """Hears all that is said, from `start` to `stop`.

    Args:
        bus: not started yet; nobody else's.
        topics: of the chain.
        signers: the allowed_signers of all.
        name: no other chain has it.
        more: further topics.
        patience: seconds for which is waited for what has to come.
    """

    def __init__(
        self,
        bus: Bus,
        topics: TopicMap,
        signers: Path,
        name: str,
        *,
        more: Sequence[str] = (),
        patience: float = 90.0,
    ) -> None:
        self.bus = bus
        self._subscriptions: list[Subscription] = []
        self._topics = topics
        self._more = more
        self._signers = signers
        #: Which passkeys count; None: none does.
        self.rules: SignatureRules | None = None
        self._name = name
        self._patience = patience
        self._messages: dict[str, Message] = {}
        self._signers_of: dict[str, Signers] = {}
        #: What daemons gave up.
        self.dead_letters: list[Delivery] = []
        self._changed = threading.Condition()

    def start(self) -> None:
        """Listen, also to what is said while nobody is there to deliver it."""
        self.bus.start()
        topics = self._topics
        for topic in (topics.source, topics.build, topics.mirror, topics.deploy, topics.report, *self._more):
            durable = f"{self._name}-books-{topic.rpartition('.')[2]}"
            self._subscriptions.append(self.bus.subscribe(topic, self._hear, durable=durable))
        self._subscriptions.append(self.bus.subscribe(self.bus.settings.dead_letter, self._keep_dead))
        for subscription in self._subscriptions:
            assert subscription.wait_active(60)

    def stop(self) -> None:
        """Stop, and leave nothing behind at the broker."""
        for subscription in self._subscriptions:
            subscription.unsubscribe(forget=True)
        self.bus.stop()

    def _hear(self, delivery: Delivery) -> None:
        message = delivery.message
        if message is None:
            return
        signer = None
        if HEADER in delivery.headers:
            allowed = load_allowed_signers(self._signers)
            if self.rules is not None:
                allowed = attrs.evolve(allowed, rules=self.rules)
            signer = verify(Frame(delivery.headers, delivery.body), allowed, datetime.now(UTC))
        self.enter(message, signer)

    def enter(self, message: Message, signer: Signers | None) -> None:
        """Enter a message, and who signed it."""
        with self._changed:
            self._messages[message.id] = message
            if signer is not None:
                self._signers_of[message.id] = signer
            self._changed.notify_all()

    def _keep_dead(self, delivery: Delivery) -> None:
        self.dead_letters.append(delivery)

    def signed_by(self, message: Message, principal: str) -> bool:
        """Whether a message came with a good signature of this principal."""
        signer = self._signers_of.get(message.id)
        return signer is not None and signer.is_principal(principal)

    def of(self, kind: type[M], check: Callable[[M], bool] = lambda _: True) -> list[M]:
        """Return the messages of a kind so far, each once."""
        with self._changed:
            return [one for one in self._messages.values() if isinstance(one, kind) and check(one)]

    def wait(self, kind: type[M], check: Callable[[M], bool], count: int = 1) -> list[M]:
        """Wait for so many messages."""
        with self._changed:
            found = self._changed.wait_for(lambda: len(self.of(kind, check)) >= count, self._patience)
        heard = [one.summary for one in self.of(Message)]
        assert found, f"{len(self.of(kind, check))} {kind.__name__}, not {count}; heard: {heard[-20:]}"
        return self.of(kind, check)

    # -- whether it adds up --------------------------------------------------------------------------------------------

    def of_push(self, commit: ObjectId, builds: Sequence[StubBuild]) -> None:
        """Compare the builds of a push with what was said of them.

        Args:
            commit: what was pushed.
            builds: what the build server built of it; all have ended.
        """
        pushes = self.wait(RefUpdated, lambda one: one.new == commit)
        assert len(pushes) == 1, pushes
        requests = self.wait(BuildRequested, lambda one: one.commit == commit and one.outcome in ("queued", "joined"))
        assert len(requests) == 1, [one.summary for one in requests]
        assert requests[0].correlation_id == pushes[0].id
        assert builds, "a push was not built"
        if len(builds) > 1:
            assert requests[0].perhaps_twice, f"built {len(builds)} times, and nobody said so: {requests[0].summary}"
        finished = self.wait(BuildFinished, lambda one: one.commit == commit, len(builds))
        outcomes = {build.number: build.result.lower() for build in builds}
        assert sorted(one.number for one in finished) == sorted(outcomes), [one.summary for one in finished]
        for one in finished:
            assert one.outcome == outcomes[one.number]
            assert one.correlation_id == pushes[0].id
            assert self.signed_by(one, CI)

    def of_deploy(self, request: DeployRequested) -> dict[str, DeployReported]:
        """Return the only report of each node that a command is for, signed by that node."""
        reports = self.wait(DeployReported, lambda one: one.request == request.id, len(request.audience))
        assert sorted(one.node for one in reports) == sorted(request.audience), [one.summary for one in reports]
        for one in reports:
            assert self.signed_by(one, one.node)
        return {one.node: one for one in reports}

    def nothing_live_unbuilt(self) -> None:
        """Check that each success of a deploy comes after a signed success of a build of its commit."""
        for report in self.of(DeployReported, lambda one: one.outcome == "success"):
            built = [one for one in self.of(BuildFinished) if one.commit == report.commit and self.signed_by(one, CI)]
            assert any(one.outcome == "success" and one.time <= report.time for one in built), report.summary
