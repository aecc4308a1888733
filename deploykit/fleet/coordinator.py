"""Send a signed deploy command and collect the nodes' signed reports.

Rules: the report topic is subscribed before the command goes out, so no answer can be missed; an answer counts only
when the node it speaks for signed it and it fits this very request.
"""

from __future__ import annotations

import contextlib
import hmac
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
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.policy import Policy
from deploykit.trust.signature import SigningKey, copy_digest, sign, verify
from deploykit.wire import Frame, decode, encode
from deploykit.wire.codec import ID_HEADER

_log = logging.getLogger(__name__)

#: Seconds of silence after which a command is sent again, with the same id and bytes; doubled each time.
_ASK_AGAIN = 10.0

#: Most doubts about one node's reports that are kept, each once.
_DOUBTS = 10


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

    def ask(self, request: DeployRequested, *, timeout: float, connect_timeout: float = 30.0) -> Iterator[Answer]:
        """Send `request` and yield an answer for each node of its audience, as they come.

        Args:
            timeout: seconds to wait for all of them; a node that stays silent is answered for with no report.
            connect_timeout: how much of that may pass until a broker is there to be asked through.

        Raises:
            ConnectError: no broker was there; nobody was asked.
            BusError: the command could not be sent; nobody was asked.
        """
        deadline = time.monotonic() + timeout
        arrived: queue.SimpleQueue[Delivery] = queue.SimpleQueue()

        def keep(delivery: Delivery) -> Verdict:
            arrived.put(delivery)
            return Ack()

        subscription = self._bus.subscribe(self._topics.report, keep)
        try:
            if not subscription.wait_active(min(timeout, connect_timeout)):
                raise ConnectError("nobody was asked: no broker answered in time", "look at it, and ask again")
            frame = sign(encode(request), self._key)
            self._bus.publish(self._topics.deploy, frame, timeout=max(0.1, deadline - time.monotonic()))
            yield from self._collect(request, frame, arrived, deadline)
        finally:
            subscription.unsubscribe()

    def _ask_again(self, frame: Frame, times: int) -> None:
        """Send the command once more: a node that is done answers again, one that is at work or new to it goes on."""
        headers = {**frame.headers, ID_HEADER: f"{frame.headers[ID_HEADER]}/{times}"}  # else a bus takes it for a copy
        with contextlib.suppress(WindowFull):  # the next silence asks again
            self._bus.publish_nowait(self._topics.deploy, Frame(headers, frame.body))

    def _collect(
        self, request: DeployRequested, frame: Frame, arrived: queue.SimpleQueue[Delivery], deadline: float
    ) -> Iterator[Answer]:
        """Yield believed answers. A report is lost when the broker restarts under us, so silence is asked again."""
        asked = 1
        backoff = Backoff(initial=_ASK_AGAIN, maximum=float("inf"))
        quiet_until = time.monotonic() + backoff.pause(asked)
        missing = dict.fromkeys(request.audience, ())
        doubts: dict[NodeName, tuple[str, ...]] = dict(missing)
        while missing:
            now = time.monotonic()
            if now >= deadline:
                break
            try:
                delivery = arrived.get(timeout=max(0.0, min(deadline, quiet_until) - now))
            except queue.Empty:
                if time.monotonic() < deadline:
                    self._ask_again(frame, asked)
                    asked += 1
                    quiet_until = time.monotonic() + backoff.pause(asked)
                continue
            report = self._report_in(delivery, request)
            if report is None or report.node not in missing:
                continue
            doubt = self._doubt(delivery, report, request, frame)
            if doubt:
                known = doubts[report.node]
                if doubt not in known and len(known) < _DOUBTS:  # anybody can send any number of them
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

    def _doubt(self, delivery: Delivery, report: DeployReported, request: DeployRequested, asked: Frame) -> str:
        """Why a report is not believed; empty when it is."""
        now = self._now()
        try:
            signer = verify(Frame(delivery.headers, delivery.body), self._trusted, now)
            self._policy.authorize_reply(report, signer, request=request, now=now)
        except (MessageError, PolicyRefused) as error:
            return str(error)
        if not hmac.compare_digest(report.answers.encode(), copy_digest(asked).encode()):
            return f"{report.node} answers another copy of this request: somebody sends under its id"
        return ""
