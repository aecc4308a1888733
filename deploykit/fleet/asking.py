"""Send a signed deploy command and collect the nodes' signed reports.

Rules:

* The report topic is subscribed before the command goes out, so no report can be missed.
* A report counts only if a key that may speak for its node signed it, and if it fits this very request.
* After some silence the command is sent again: a report may have been lost. Nodes answer a repeated command again.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections.abc import Callable, Iterator
from datetime import datetime

import attrs

from deploykit.bus import Ack, Bus, Delivery, Verdict
from deploykit.errors import ConnectError, MessageError, PolicyRefused, WindowFull
from deploykit.messages import DeployReported, DeployRequested, utc_now
from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName
from deploykit.system.backoff import Backoff
from deploykit.trust.check import Trust
from deploykit.trust.signature import SigningKey, sign
from deploykit.wire import Frame, decode, encode
from deploykit.wire.codec import ID_HEADER

_log = logging.getLogger(__name__)

#: Seconds of silence after which a command is sent again, with the same id and bytes; doubled each time.
_ASK_AGAIN = 10.0

#: Most reasons against one node's reports that are kept, each once.
_DOUBTS = 10


@attrs.frozen(kw_only=True, slots=True)
class Answer:
    """One node's answer.

    Args:
        node: who answers.
        report: what it reported; None if no report came in time.
        doubts: why other reports in its name were not believed, each reason once.
    """

    node: NodeName
    report: DeployReported | None = None
    doubts: tuple[str, ...] = ()


class Coordinator:
    """Asks nodes over a bus.

    Args:
        bus: started.
        topics: where commands and reports go.
        key: signs the commands.
        trust: judges the reports.
        now: the wall clock, aware UTC.
    """

    def __init__(
        self,
        bus: Bus,
        topics: TopicMap,
        key: SigningKey,
        trust: Trust,
        *,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._bus = bus
        self._topics = topics
        self._key = key
        self._trust = trust
        self._now = now

    def ask(self, request: DeployRequested, *, timeout: float, connect_timeout: float = 30.0) -> Iterator[Answer]:
        """Send `request` and yield an answer for each node of its audience, as they come.

        Args:
            request: the command.
            timeout: seconds to wait for all nodes. A node that stays silent gets an answer without a report.
            connect_timeout: seconds of these to wait for a broker.

        Raises:
            ConnectError: no broker is connected; the command was not sent.
            BusError: the command was not sent, or the broker did not confirm it.
        """
        deadline = time.monotonic() + timeout
        arrived: queue.SimpleQueue[Delivery] = queue.SimpleQueue()

        def keep(delivery: Delivery) -> Verdict:
            arrived.put(delivery)
            return Ack()

        subscription = self._bus.subscribe(self._topics.report, keep)
        try:
            if not subscription.wait_active(min(timeout, connect_timeout)):
                raise ConnectError("no broker reachable in time: the command was not sent", "try again")
            frame = sign(encode(request), self._key)
            self._bus.publish(self._topics.deploy, frame, timeout=max(0.1, deadline - time.monotonic()))
            yield from self._collect(request, frame, arrived, deadline)
        finally:
            subscription.unsubscribe()

    def _send_again(self, frame: Frame, times: int) -> None:
        """Send the command once more. A node that is done answers again; one at work, or new to it, goes on."""
        headers = {**frame.headers, ID_HEADER: f"{frame.headers[ID_HEADER]}/{times}"}  # else a bus drops it as a copy
        with contextlib.suppress(WindowFull):  # the next silence sends it again
            self._bus.publish_nowait(self._topics.deploy, Frame(headers, frame.body))

    def _collect(
        self, request: DeployRequested, frame: Frame, arrived: queue.SimpleQueue[Delivery], deadline: float
    ) -> Iterator[Answer]:
        """Yield believed answers. A broker that restarts may lose a report: after silence the command goes again."""
        sent = 1
        backoff = Backoff(initial=_ASK_AGAIN, maximum=float("inf"))
        quiet_until = time.monotonic() + backoff.pause(sent)
        missing = dict.fromkeys(request.audience)
        doubts: dict[NodeName, tuple[str, ...]] = dict.fromkeys(request.audience, ())
        while missing:
            now = time.monotonic()
            if now >= deadline:
                break
            try:
                delivery = arrived.get(timeout=max(0.0, min(deadline, quiet_until) - now))
            except queue.Empty:
                if time.monotonic() < deadline:
                    self._send_again(frame, sent)
                    sent += 1
                    quiet_until = time.monotonic() + backoff.pause(sent)
                continue
            report = self._report_in(delivery, request)
            if report is None or report.node not in missing:
                continue
            doubt = self._doubt(delivery, request, frame)
            if doubt:
                known = doubts[report.node]
                if doubt not in known and len(known) < _DOUBTS:  # anybody can send any number of reports
                    _log.warning("report not believed: %s: %s", report.summary, doubt)
                    doubts[report.node] += (doubt,)
                continue
            del missing[report.node]
            yield Answer(node=report.node, report=report, doubts=doubts[report.node])
        for node in missing:
            yield Answer(node=node, doubts=doubts[node])

    def _report_in(self, delivery: Delivery, request: DeployRequested) -> DeployReported | None:
        """Return what claims to be a report on our request; None for anything else. Nothing is verified here."""
        try:
            message = decode(delivery.headers, delivery.body, delivery.destination)
        except MessageError as error:
            _log.debug("not a message on %s: %s", delivery.destination, error)
            return None
        return message if isinstance(message, DeployReported) and message.request == request.id else None

    def _doubt(self, delivery: Delivery, request: DeployRequested, sent: Frame) -> str:
        """Return why a report is not believed; empty when it is."""
        now = self._now()
        try:
            self._trust.check(Frame(delivery.headers, delivery.body), now, destination=delivery.destination).believe(
                request, now, sent=sent
            )
        except (MessageError, PolicyRefused) as error:
            return str(error)
        return ""
