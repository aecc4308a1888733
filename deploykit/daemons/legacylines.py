"""In a fleet that is half the original's: what our daemons announce to people beside their own messages. Pure.

Rules:

* Our messages stay as they are: our readers need them, and they may be signed. The line comes beside them.
* Announced is what the original's programs announced (a mirror moved, a build was asked for, an access was given,
  package sources were read), and what became of deploys. Questions, descriptions and progress are not.
* What did not change anything is not announced. Neither is what an answer to a stranger says.
* A line begins with the node's name, as the original's daemons wrote it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from deploykit.messages import AccessReported, DeployReported, Message, MirrorUpdated, Notice, PackageReported, one_line
from deploykit.messages.topics import TopicMap, topic_of
from deploykit.outbox.format import Outgoing
from deploykit.wire.people import line_frame, line_id


def line_of(message: Message) -> Notice | None:
    """Return the line for people of a daemon's report; None for what is not announced.

    The first part of its `source` chooses the topic: `topics.notices` names them. By its correlation id and its text
    whoever hears the report, too, knows that both say the same.
    """
    match message:
        case MirrorUpdated() if message.outcome != "unchanged":
            kind, text = "mirror", message.summary
        case DeployReported():
            kind, text = "deploy", message.summary
        case AccessReported() if message.outcome != "refused":
            kind, text = "access", _access(message)
        case PackageReported():
            kind, text = "packages", _package(message)
        case _:
            return None
    return Notice(
        id=line_id(message),
        source=f"{kind}/{message.node}",
        time=message.time,
        text=one_line(text, _LINE),
        correlation_id=message.correlation_id or message.id,
    )


#: Characters of a line: readers of chats cut longer ones.
_LINE: Final = 1500


def _access(message: AccessReported) -> str:
    until = f" until {message.until:%Y-%m-%d}" if message.until else ""
    why = f": {message.detail}" if message.detail else ""
    return f"{message.node} access to {message.site} for {message.user} {message.outcome}{until}{why}"


def _package(message: PackageReported) -> str:
    held = f"{message.installed} installed" if message.installed else "not installed"
    newer = message.candidate if message.candidate != message.installed else ""
    could = f", {newer} available" if newer else ""
    why = f" (sources not read: {message.detail})" if message.outcome == "failed" else ""
    return f"{message.node} package {message.name}: {held}{could}{why}"


def outgoing_lines(messages: Iterable[Message], topics: TopicMap) -> list[Outgoing]:
    """Return the lines for people of some reports, as the original's readers take them.

    Raises:
        MessageError: a line cannot be encoded.
    """
    return [outgoing_line(line, topics, legacy=True) for line in map(line_of, messages) if line is not None]


def outgoing_line(notice: Notice, topics: TopicMap, *, legacy: bool) -> Outgoing:
    """Return one line on its topic. `legacy`: as plain text, which it is on the original's topics in any case.

    Raises:
        MessageError: it cannot be encoded.
    """
    destination = topic_of(notice, topics)
    return Outgoing(destination, line_frame(notice, destination, legacy=legacy))


__all__ = ["line_of", "outgoing_line", "outgoing_lines"]
