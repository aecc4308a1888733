"""One simulated node on one connection: it verifies what it is asked, waits as a script would, says so, and answers.

All that it sends is signed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random

from deploykit.broker.frames import StompFrame
from deploykit.errors import DeploykitError
from deploykit.messages import DeployRequested, Message, NodeQueried, utc_now
from deploykit.messages.topics import TopicMap
from deploykit.trust.check import Trust, Verified
from deploykit.trust.signature import SigningKey, sign
from deploykit.wire import Frame, encode
from tests.support.simfleet.model import SimulatedNode
from tests.support.simfleet.stomp import AsyncStomp


class NodeOnBus:
    """A node and its connection.

    Args:
        node: what it is.
        key: signs its answers.
        trust: judges commands and questions.
        topics: where they come from, and answers go.
        dice: draws how long its scripts take.
    """

    def __init__(
        self, node: SimulatedNode, key: SigningKey, trust: Trust, topics: TopicMap, dice: random.Random
    ) -> None:
        self.node = node
        self._key = key
        self._trust = trust
        self._topics = topics
        self._dice = dice
        self._work: set[asyncio.Task[None]] = set()

    async def connect(self, port: int, login: str, passcode: str) -> AsyncStomp:
        """Return a connection on which the node's topics are subscribed."""
        topics = self._topics
        stomp = await AsyncStomp.connect(port, login, passcode)
        await stomp.subscribe(topics.node, topics.deploy, topics.deploy_to(self.node.name))
        return stomp

    async def serve(self, stomp: AsyncStomp) -> None:
        """Answer until the connection ends."""
        async for frame in stomp.frames():
            if frame.command != "MESSAGE":
                continue
            with contextlib.suppress(DeploykitError):  # not for us, or not to be obeyed
                task = asyncio.ensure_future(self._handle(stomp, self._verified(frame)))
                self._work.add(task)
                task.add_done_callback(self._work.discard)

    def _verified(self, frame: StompFrame) -> Verified:
        received = Frame(dict(frame.headers), frame.body)
        verified = self._trust.check(received, utc_now(), destination=frame.headers.get("destination", ""))
        verified.authorize(utc_now())
        return verified

    async def _handle(self, stomp: AsyncStomp, asked: Verified) -> None:
        match asked.message:
            case NodeQueried() as question:
                self._send(stomp, self._topics.inventory, self.node.describe(question, asked.copy))
            case DeployRequested() as request:
                if self.node.faults.silent:
                    return
                seconds = self._dice.uniform(0.0, self.node.faults.slowest)
                self._send(stomp, self._topics.progress, self.node.progress(request, 0, "began", 0.0))
                await asyncio.sleep(seconds)
                self._send(stomp, self._topics.progress, self.node.progress(request, 1, "done", seconds))
                report = self.node.obey(request, asked.copy, seconds)
                if report is not None:
                    self._send(stomp, self._topics.report, report)

    def _send(self, stomp: AsyncStomp, topic: str, message: Message) -> None:
        frame = sign(encode(message), self._key)
        for _ in range(2 if self.node.faults.twice else 1):
            stomp.publish(topic, frame)
