"""Send a signed deploy command and collect the nodes' signed reports.

Rules: the report topic is subscribed before the command goes out, so no answer can be missed; an answer counts only
when the node it speaks for signed it and it fits this very request.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterator
from datetime import datetime

import attrs

from deploykit.bus import Ack, Bus, Delivery, Verdict
from deploykit.errors import MessageError, PolicyRefused
from deploykit.messages import DeployReported, DeployRequested, utc_now
from deploykit.names import NodeName
from deploykit.settings import TopicMap
from deploykit.wire import Frame, decode, encode
from deploykit.wire.allowed_signers import AllowedSigners
from deploykit.wire.policy import Policy
from deploykit.wire.signature import SigningKey, sign, verify

_log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True, slots=True)
class Answer:
    """One node's answer: its report, or None when none came in time. `doubts` tells of reports not believed."""

    node: NodeName
    report: DeployReported | None = None
    doubts: tuple[str, ...] = ()


class Coordinator:
    """Asks nodes over a bus.

    Args:
        bus: started.
        topics: where commands and reports go.
        key: signs the commands.
        trusted: whose reports to believe.
        policy: who may speak for which node.
        now: the wall clock, aware UTC.
    """

    def __init__(
        self,
        bus: Bus,
        topics: TopicMap,
        key: SigningKey,
        trusted: AllowedSigners,
        policy: Policy,
        *,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._bus = bus
        self._topics = topics
        self._key = key
        self._trusted = trusted
        self._policy = policy
        self._now = now

    def ask(self, request: DeployRequested, *, timeout: float) -> Iterator[Answer]:
        """Send `request` and yield an answer for each node of its audience, as they come.

        Args:
            timeout: seconds to wait for all of them; a node that stays silent is answered for with no report.

        Raises:
            BusError: the command could not be sent; nobody was asked.
        """
        deadline = time.monotonic() + timeout
        arrived: queue.SimpleQueue[Delivery] = queue.SimpleQueue()

        def keep(delivery: Delivery) -> Verdict:
            arrived.put(delivery)
            return Ack()

        subscription = self._bus.subscribe(self._topics.report, keep)
        try:
            subscription.wait_active(timeout)
            frame = sign(encode(request), self._key)
            self._bus.publish(self._topics.deploy, frame, timeout=max(0.1, deadline - time.monotonic()))
            yield from self._collect(request, arrived, deadline)
        finally:
            subscription.unsubscribe()

    def _collect(
        self, request: DeployRequested, arrived: queue.SimpleQueue[Delivery], deadline: float
    ) -> Iterator[Answer]:
        missing = dict.fromkeys(request.audience, ())
        doubts: dict[NodeName, tuple[str, ...]] = dict(missing)
        while missing:
            try:
                delivery = arrived.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            report = self._report_in(delivery, request)
            if report is None or report.node not in missing:
                continue
            doubt = self._doubt(delivery, report, request)
            if doubt:
                _log.warning("not believed: %s: %s", report.summary, doubt)
                doubts[report.node] += (doubt,)
                continue
            del missing[report.node]
            yield Answer(node=report.node, report=report, doubts=doubts[report.node])
        for node in missing:
            yield Answer(node=node, doubts=doubts[node])

    def _report_in(self, delivery: Delivery, request: DeployRequested) -> DeployReported | None:
        try:
            message = decode(delivery.headers, delivery.body, delivery.destination)
        except MessageError as error:
            _log.debug("not a message on %s: %s", delivery.destination, error)
            return None
        return message if isinstance(message, DeployReported) and message.request == request.id else None

    def _doubt(self, delivery: Delivery, report: DeployReported, request: DeployRequested) -> str:
        """Why a report is not believed; empty when it is."""
        now = self._now()
        try:
            signer = verify(Frame(delivery.headers, delivery.body), self._trusted, now)
            self._policy.authorize_reply(report, signer, request=request, now=now)
        except (MessageError, PolicyRefused) as error:
            return str(error)
        return ""
