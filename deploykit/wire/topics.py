"""Which topic a message goes to. The logical topics and their names are `settings.TopicSettings`."""

from __future__ import annotations

from typing import Final

from deploykit.messages import DeployReported, DeployRequested, Message, MirrorUpdated, RefUpdated
from deploykit.settings import TopicSettings

_LOGICAL: Final[dict[type[Message], str]] = {
    RefUpdated: "source",
    MirrorUpdated: "mirror",
    DeployRequested: "deploy",
    DeployReported: "report",
}


def topic_of(message: Message, topics: TopicSettings) -> str:
    """Return the destination for a message; what is for people only goes to the notice topic."""
    name: str = getattr(topics, _LOGICAL.get(type(message), "notice"))
    return name
