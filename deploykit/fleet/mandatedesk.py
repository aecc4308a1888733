"""Publish a rollout's mandate, and send it again to nodes that lack it.

Rules:

* It is broadcast once, before the first command; whoever goes on with the rollout broadcasts it again.
* A node that lacks it says so, signed, and names the command it waits with. It gets the mandate, then its commands.
* A question counts only of a node that still owes an answer to just that command, once a second for each node.
* Where many nodes ask at once, one more broadcast serves them all: a mandate may be as long as a message can be.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

from deploykit.bus import Delivery
from deploykit.errors import DeploykitError, MessageError
from deploykit.fleet.commandbook import CommandBook
from deploykit.fleet.commands import SentCommand
from deploykit.fleet.mandates import HeldMandate, time_objection
from deploykit.fleet.sender import CommandSender
from deploykit.messages import ApprovalWanted
from deploykit.names import NodeName
from deploykit.trust.check import Trust
from deploykit.wire import Frame

_log = logging.getLogger(__name__)

#: Seconds in which a node is served once, and between two broadcasts.
SERVED_FOR: Final = 1.0
#: Most nodes that are served one by one in a round; for more of them it is broadcast again.
MOST_SINGLE: Final = 10


class MandateDesk:
    """Hands out the mandate of one rollout; without a mandate it does nothing.

    Args:
        mandate: of the rollout; None where nobody had to approve it.
        sender: sends it, and the commands again.
        trust: judges who asks for it.
        book: the commands of the rollout.
        now: the wall clock, aware UTC.
    """

    def __init__(
        self,
        mandate: HeldMandate | None,
        sender: CommandSender,
        trust: Trust,
        book: CommandBook,
        now: Callable[[], datetime],
    ) -> None:
        self._mandate = mandate
        self._sender = sender
        self._trust = trust
        self._book = book
        self._now = now
        self._asking: dict[NodeName, None] = {}
        self._served: dict[NodeName, float] = {}
        #: Nodes whose commands go again, and when: a broadcast and a command may overtake each other.
        self._behind: dict[NodeName, float] = {}
        self._next_broadcast = 0.0
        self._noted_end = False

    def publish(self, now: float) -> None:
        """Queue the mandate for all nodes.

        Args:
            now: monotonic seconds.
        """
        if self._mandate is not None:
            self._sender.broadcast(self._mandate.frame)
            self._next_broadcast = now + SERVED_FOR

    def news(self, wall: datetime) -> str:
        """Return a line for people once the mandate has ended, the first time; else an empty text."""
        if self._mandate is None or self._noted_end or wall <= self._mandate.message.not_after:
            return ""
        self._noted_end = True
        return f"{time_objection(self._mandate.message, wall)}: nodes obey nothing more of this rollout but discard"

    def concerns(self, delivery: Delivery) -> bool:
        """Return whether a delivery claims to ask for this mandate. Nothing is verified."""
        if self._mandate is None:
            return False
        with contextlib.suppress(MessageError):  # asks for nothing
            message = delivery.message
            return isinstance(message, ApprovalWanted) and message.mandate == self._mandate.digest
        return False

    def hear(self, delivery: Delivery, now: float) -> None:
        """Take a question that concerns this mandate; one that does not count is passed over.

        Args:
            delivery: it `concerns` us.
            now: monotonic seconds.
        """
        wanted = delivery.message
        if not isinstance(wanted, ApprovalWanted) or self._book.wanted(wanted.node, wanted.request) is None:
            return
        if wanted.node in self._asking or now < self._served.get(wanted.node, now):
            return
        try:
            frame = Frame(delivery.headers, delivery.body)
            signer = self._trust.check(frame, self._now(), destination=delivery.destination).signer
        except DeploykitError as error:
            _log.debug("a question for the mandate does not count: %s", error)
            return
        if self._trust.policy.may_speak_for(signer, wanted.node, wanted):
            self._asking[wanted.node] = None

    def step(self, now: float, wall: datetime, silent: Callable[[NodeName, SentCommand], bool]) -> None:
        """Queue what nodes asked for.

        Args:
            now: monotonic seconds.
            wall: aware; an expired command is not sent again.
            silent: returns whether a node still owes an answer to a command.
        """
        if self._mandate is None:
            return
        for node in [node for node, due in self._behind.items() if now >= due]:
            del self._behind[node]
            self._sender.again(node, now, wall, silent)
        if len(self._asking) <= MOST_SINGLE:
            for node in self._asking:
                self._sender.again(node, now, wall, silent, before=self._mandate.frame)
        elif now >= self._next_broadcast:
            self.publish(now)
            self._behind.update(dict.fromkeys(self._asking, now + SERVED_FOR))
        else:
            return
        self._served = {node: until for node, until in self._served.items() if until > now}
        self._served.update(dict.fromkeys(self._asking, now + SERVED_FOR))
        self._asking.clear()


__all__ = ["MOST_SINGLE", "SERVED_FOR", "MandateDesk"]
