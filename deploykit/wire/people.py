"""Lines for people: which event one belongs to, and in which form it is sent. Light: it is on the path of a push.

Rules:

* On the original's topics for people stands nothing but the original's plain text, whatever the settings say.
* A line's id follows from its event's: an event that is published again has the same line, and no second one.
"""

from __future__ import annotations

import uuid

from deploykit.messages.base import Message
from deploykit.messages.notice import Notice
from deploykit.messages.topics import is_for_people
from deploykit.wire.codec import encode_fitted
from deploykit.wire.frame import Frame


def line_id(message: Message) -> str:
    """Return the id of a message's line."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{message.id}\0notice"))


def line_frame(notice: Notice, destination: str, *, legacy: bool) -> Frame:
    """Return a line as it is sent to a destination.

    Args:
        notice: the line.
        destination: one of the original's makes plain text of it.
        legacy: plain text everywhere.

    Raises:
        MessageError: a field holds what no reader would accept.
    """
    if not legacy and not is_for_people(destination):
        return encode_fitted(notice)
    from deploykit.wire.legacy import encode_legacy

    return encode_legacy(notice)


__all__ = ["line_frame", "line_id"]
