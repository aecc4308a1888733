"""Send a rollout's commands to each node's own topic, and again to nodes that stay silent. Never blocks.

Rules:

* Commands go to `topics.deploy_to(node)`: one topic for all would cost the square of the fleet.
* The first time a command goes out as it was signed. Each further copy has the same bytes and a new transport id.
* After some seconds of silence a command goes again, to silent nodes only, and after doubled pauses: the broker may
  have lost the command or the report. An expired command is not sent again.
* A broker that refuses a topic may end the connection each time. After a refusal, that node is left out for a minute.
* An abort goes to the broadcast topic, until the broker has confirmed it.
* The mandate of a rollout goes to the broadcast topic once, before the first command, and to a node that asks for it.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from typing import Final

import attrs

from deploykit.bus import Bus
from deploykit.errors import BusError, PublishRefused, WindowFull
from deploykit.fleet.commands import SentAbort, SentCommand, copy_of
from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName
from deploykit.system.backoff import Backoff
from deploykit.wire import Frame

#: Seconds of silence after which a command is sent again; doubled each time.
ASK_AGAIN: Final = 10.0
#: Seconds until what the broker did not take is tried again; also the pause after a connection came back.
_SOON: Final = 1.0
#: Seconds for which a node is sent no copy after the broker refused one to its topic.
_AFTER_REFUSAL: Final = 60.0


@attrs.define(kw_only=True, slots=True)
class _Sending:
    """A command on its way to some nodes, how often it went out, and when it goes again."""

    command: SentCommand
    nodes: tuple[NodeName, ...]
    times: int
    due: float


@attrs.frozen(kw_only=True, slots=True)
class _Outgoing:
    """A frame that the bus has no room for yet; of a command, or for one node, with that node."""

    destination: str
    frame: Frame
    node: NodeName | None = None


class CommandSender:
    """Sends what is due, each time `step` is called.

    Args:
        bus: started.
        topics: where commands go.
        problem: is called, on the thread of `step`, with what the broker would not take.
    """

    def __init__(self, bus: Bus, topics: TopicMap, problem: Callable[[str], object]) -> None:
        self._bus = bus
        self._topics = topics
        self._problem = problem
        self._backoff = Backoff(initial=ASK_AGAIN, maximum=float("inf"))
        self._mark = secrets.token_hex(4)
        self._copies = 0
        self._sendings: list[_Sending] = []
        self._outgoing: deque[_Outgoing] = deque()
        self._refusals: deque[NodeName] = deque()
        self._not_before: dict[NodeName, float] = {}
        self._failed: deque[str] = deque(maxlen=100)
        self._abort: SentAbort | None = None
        self._abort_due = 0.0
        self._abort_future: Future[None] | None = None

    def send(self, command: SentCommand, nodes: Iterable[NodeName], now: float, *, again: bool = False) -> None:
        """Queue a command for nodes.

        Args:
            command: on the disk already.
            nodes: of its audience.
            now: monotonic seconds.
            again: it may have been sent before, by another process.
        """
        chosen = tuple(nodes)
        frame = self._copy(command.frame) if again else command.frame
        self._outgoing.extend(self._to(node, frame) for node in chosen)
        due = now + self._backoff.pause(1)
        self._sendings.append(_Sending(command=command, nodes=chosen, times=1, due=due))

    def broadcast(self, frame: Frame) -> None:
        """Queue a copy of a frame for all nodes. What the broker refuses is reported, and not sent again."""
        self._outgoing.append(_Outgoing(destination=self._topics.deploy, frame=self._copy(frame)))

    def again(
        self,
        node: NodeName,
        now: float,
        wall: datetime,
        silent: Callable[[NodeName, SentCommand], bool],
        *,
        before: Frame | None = None,
    ) -> None:
        """Queue a node's unanswered commands once more, beside the times when they go again anyway.

        Args:
            node: of their audience.
            now, wall, silent: as of `step`.
            before: is sent to the node first, where there is such a command.
        """
        if now < self._not_before.get(node, now):
            return
        unanswered = [
            sending.command.frame
            for sending in self._sendings
            if node in sending.nodes and wall < sending.command.request.expires and silent(node, sending.command)
        ]
        first = [before] if before is not None and unanswered else []
        self._outgoing.extend(self._to(node, self._copy(frame)) for frame in (*first, *unanswered))

    def abort(self, abort: SentAbort, *, again: bool = False) -> None:
        """Queue the abort; `again`: another process may have sent it before."""
        self._abort = attrs.evolve(abort, frame=self._copy(abort.frame)) if again else abort
        self._abort_future, self._abort_due = None, 0.0

    def hurry(self, now: float) -> None:
        """Send again soon: a connection was lost, and reports with it."""
        for sending in self._sendings:
            sending.due = min(sending.due, now + _SOON)

    @property
    def abort_pending(self) -> bool:
        """Whether an abort waits for the broker to confirm it."""
        return self._abort is not None

    @property
    def queued(self) -> int:
        """How many copies the bus had no room for yet."""
        return len(self._outgoing)

    def step(self, now: float, wall: datetime, silent: Callable[[NodeName, SentCommand], bool]) -> float:
        """Hand the bus what is due; return when to call again, in monotonic seconds.

        Args:
            now: monotonic seconds.
            wall: aware; an expired command is not sent again.
            silent: returns whether a node still owes an answer to a command.
        """
        while self._refusals:
            self._not_before[self._refusals.popleft()] = now + _AFTER_REFUSAL
        self._send_due(now, wall, silent)
        while self._outgoing:
            try:
                item = self._outgoing[0]
                future = self._bus.publish_nowait(item.destination, item.frame)
            except WindowFull:
                break
            except BusError as error:
                self._failed.append(str(error))
            else:
                future.add_done_callback(partial(self._settled, item.node))
            self._outgoing.popleft()
        self._send_abort(now, wall)
        while self._failed:
            self._problem(self._failed.popleft())
        soon = [now + 0.05] if self._outgoing else []
        return min([*(sending.due for sending in self._sendings), *soon], default=float("inf"))

    def _send_due(self, now: float, wall: datetime, silent: Callable[[NodeName, SentCommand], bool]) -> None:
        for sending in [sending for sending in self._sendings if sending.due <= now]:
            sending.nodes = tuple(node for node in sending.nodes if silent(node, sending.command))
            if not sending.nodes or wall >= sending.command.request.expires:
                self._sendings.remove(sending)
                continue
            frame = self._copy(sending.command.frame)
            self._outgoing.extend(
                self._to(node, frame) for node in sending.nodes if now >= self._not_before.get(node, now)
            )
            sending.times += 1
            sending.due = now + self._backoff.pause(sending.times)

    def _send_abort(self, now: float, wall: datetime) -> None:
        if self._abort is None or now < self._abort_due:
            return
        future = self._abort_future
        if future is not None and future.done() and future.exception() is None:
            self._abort = None
        elif wall >= self._abort.message.expires:
            self._failed.append("the abort was not confirmed before it expired")
            self._abort = None
        elif future is None or future.done():
            try:
                frame = self._abort.frame if future is None else self._copy(self._abort.frame)
                self._abort_future = self._bus.publish_nowait(self._topics.deploy, frame)
            except BusError as error:
                self._failed.append(f"the abort is not sent yet: {error}")
                self._abort_due = now + _SOON

    def _to(self, node: NodeName, frame: Frame) -> _Outgoing:
        return _Outgoing(destination=self._topics.deploy_to(node), frame=frame, node=node)

    def _copy(self, frame: Frame) -> Frame:
        self._copies += 1
        return copy_of(frame, f"{self._mark}-{self._copies}")

    def _settled(self, node: NodeName | None, future: Future[None]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            self._failed.append(str(error))
            if isinstance(error, PublishRefused) and node is not None:
                self._refusals.append(node)


__all__ = ["ASK_AGAIN", "CommandSender"]
