"""A node's messages go into its outbox first, so that a broker that is away loses none.

In a fleet that is half the original's, the line for people of each report (`daemons.legacylines`) goes with it, by the
same durable write.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from deploykit.daemons.legacylines import outgoing_line, outgoing_lines
from deploykit.errors import MessageError
from deploykit.messages import (
    AccessReported,
    ApprovalWanted,
    DeployReported,
    Message,
    NodeDescribed,
    Notice,
    PackageReported,
    new_id,
)
from deploykit.messages.topics import TopicMap, topic_of
from deploykit.outbox import Outbox, Outgoing
from deploykit.trust.signature import BodySigner, sign
from deploykit.wire import CONTENT_TYPE, Frame, decode, encode_fitted
from deploykit.wire.codec import ID_HEADER

_log = logging.getLogger(__name__)


class Reporter:
    """Encodes a node's messages, signs those its key must vouch for, and queues them in one durable step.

    Args:
        outbox: where they wait for the relay.
        topics: where each kind goes.
        key: the node's own key; without one, replies go out unsigned and no asker believes them.
        stamp: adds to a deploy's report which agent made it.
        legacy: the original's programs listen, too: reports have a line for people beside them.
    """

    def __init__(
        self,
        outbox: Outbox,
        topics: TopicMap,
        key: BodySigner | None,
        *,
        stamp: Callable[[DeployReported], DeployReported] = lambda report: report,
        legacy: bool = False,
    ) -> None:
        self._outbox = outbox
        self._topics = topics
        self._key = key
        self._stamp = stamp
        self._legacy = legacy

    def report(self, *messages: Message, announced: bool = True) -> tuple[Frame, ...]:
        """Queue `messages`, all or none, and return their frames. Texts and lists too long for a message are cut.

        Args:
            messages: what is reported.
            announced: whether people get a line, where the settings say so. Not for an answer that was given before,
                and not for one to a stranger.

        Raises:
            OutboxError: the spool cannot take them; nothing was queued.
            MessageError: one of them holds what no reader would accept; nothing was queued.
        """
        messages = tuple(self._stamp(each) if isinstance(each, DeployReported) else each for each in messages)
        outgoing = [self._outgoing(message) for message in messages]
        lines = outgoing_lines(messages, self._topics) if self._legacy and announced else []
        self._outbox.put_many([*outgoing, *lines])
        for message in messages:
            _log.info("%s", message.summary)
        return tuple(each.frame for each in outgoing)

    def report_again(self, body: bytes) -> None:
        """Queue an earlier message again, from its body: the same id and bytes, signed anew.

        It travels under a new transport id: a bus that has seen the first would drop it as a duplicate.

        Raises:
            OutboxError: the spool cannot take it; nothing was queued.
            MessageError: the body is damaged.
        """
        message = decode({"content-type": CONTENT_TYPE}, body)
        if message is None:
            raise MessageError("a stored report is empty")
        headers = {**encode_fitted(message).headers, ID_HEADER: f"{message.id}/{new_id()}"}
        # Signed as it is stored: this version might write the same message in other bytes.
        self._outbox.put_many([self._signed(message, Frame(headers, body))])

    def _outgoing(self, message: Message) -> Outgoing:
        if isinstance(message, Notice):
            return outgoing_line(message, self._topics, legacy=self._legacy)
        return self._signed(message, encode_fitted(message))

    def _signed(self, message: Message, frame: Frame) -> Outgoing:
        if (
            isinstance(message, DeployReported | NodeDescribed | ApprovalWanted | AccessReported | PackageReported)
            and self._key is not None
        ):
            frame = sign(frame, self._key)
        return Outgoing(topic_of(message, self._topics), frame)
