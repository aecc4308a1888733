"""Which topic a message goes to. The map of logical topics to destinations is `topics.TopicMap`."""

from __future__ import annotations

from typing import Final

from deploykit.messages.base import Message
from deploykit.topics import PRESETS, TopicMap

__all__ = ["PRESETS", "TopicMap", "topic_of"]

# By wire type, not by class: a push imports only the classes it uses.
_LOGICAL: Final[dict[str, str]] = {
    "deploykit.source.ref-updated.v1": "source",
    "deploykit.source.revision-committed.v1": "source",
    "deploykit.build.requested.v1": "build",
    "deploykit.build.started.v1": "build",
    "deploykit.build.finished.v1": "build",
    "deploykit.package.published.v1": "package",
    "deploykit.access.grant-requested.v1": "access",
    "deploykit.access.revoke-requested.v1": "access",
    "deploykit.mirror.updated.v1": "mirror",
    "deploykit.deploy.requested.v1": "deploy",
    "deploykit.deploy.reported.v1": "report",
    "deploykit.node.queried.v1": "node",
    "deploykit.node.described.v1": "node",
}
_BUILD_FINISHED: Final = "deploykit.build.finished.v1"
_NOTICE: Final = "deploykit.notice.v1"


def topic_of(message: Message, topics: TopicMap) -> str:
    """Return the destination for a message; what has no topic of its own goes where people read.

    >>> from deploykit.messages import Notice
    >>> topic_of(Notice(text="hello", source="git/host"), PRESETS["future"])
    '/topic/future.events.gitolite'
    """
    if message.TYPE == _BUILD_FINISHED:
        ended = topics.build_success if getattr(message, "outcome", "") == "success" else topics.build_failure
        return ended or topics.build
    if message.TYPE == _NOTICE:
        return topics.notices.get(message.source.partition("/")[0], topics.notice)
    name: str = getattr(topics, _LOGICAL.get(message.TYPE, "notice"))
    return name
