"""Which topic a message goes to. The map of logical topics to destinations is `settings.TopicMap`."""

from __future__ import annotations

from typing import Final

from deploykit.messages import (
    AccessGrantRequested,
    AccessRevokeRequested,
    BuildFinished,
    BuildRequested,
    BuildStarted,
    DeployReported,
    DeployRequested,
    Message,
    MirrorUpdated,
    NodeDescribed,
    NodeQueried,
    Notice,
    PackagePublished,
    RefUpdated,
    RevisionCommitted,
)
from deploykit.settings import PRESETS, TopicMap

__all__ = ["PRESETS", "TopicMap", "topic_of"]

_LOGICAL: Final[dict[type[Message], str]] = {
    RefUpdated: "source",
    RevisionCommitted: "source",
    BuildRequested: "build",
    BuildStarted: "build",
    BuildFinished: "build",
    PackagePublished: "package",
    AccessGrantRequested: "access",
    AccessRevokeRequested: "access",
    MirrorUpdated: "mirror",
    DeployRequested: "deploy",
    DeployReported: "report",
    NodeQueried: "node",
    NodeDescribed: "node",
}


def topic_of(message: Message, topics: TopicMap) -> str:
    """Return the destination for a message; what has no topic of its own goes where people read.

    >>> from deploykit.messages import Notice
    >>> topic_of(Notice(text="hello", source="git/host"), PRESETS["future"])
    '/topic/future.events.gitolite'
    """
    if isinstance(message, BuildFinished):
        ended = topics.build_success if message.outcome == "success" else topics.build_failure
        return ended or topics.build
    if isinstance(message, Notice):
        return topics.notices.get(message.source.partition("/")[0], topics.notice)
    name: str = getattr(topics, _LOGICAL.get(type(message), "notice"))
    return name
