"""Where messages go: logical topics, the destinations they stand for, and the topic of a message.

Light: it is on the path of a push.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import attrs

from deploykit.messages.base import Message

_NOTHING: Mapping[str, str] = MappingProxyType({})
#: Topics that may be empty: then `build` is meant.
_MAY_BE_EMPTY: Final = ("build_success", "build_failure")


@attrs.frozen(kw_only=True, slots=True)
class TopicMap:
    """Where messages go: the logical topics, and a destination for each. `PRESETS` holds the usual maps.

    Args:
        source: what happened in repositories: refs and revisions.
        build: builds that were asked for, began or ended.
        build_success, build_failure: builds that ended so, where they go elsewhere; empty means `build`.
        package, access, mirror, deploy, report, node: as their names say; `report` is the answers to `deploy`.
        inventory: what nodes say of themselves, asked on `node` or not. Apart from `node`, to which every agent
            subscribes.
        progress: what deploys do while they run.
        notice: lines for people.
        notices: where the lines of one kind of publisher go instead, by the first part of the message's `source`
            (`git`, `svn`, `webhook`, `jenkins`, `packages`, `access`, `mirror`, `deploy`, `agent`).
    """

    source: str = "/topic/deploykit.source"
    build: str = "/topic/deploykit.build"
    build_success: str = ""
    build_failure: str = ""
    package: str = "/topic/deploykit.package"
    access: str = "/topic/deploykit.access"
    mirror: str = "/topic/deploykit.mirror"
    deploy: str = "/topic/deploykit.deploy"
    report: str = "/topic/deploykit.report"
    node: str = "/topic/deploykit.node"
    inventory: str = "/topic/deploykit.inventory"
    progress: str = "/topic/deploykit.progress"
    notice: str = "/topic/deploykit.notice"
    notices: Mapping[str, str] = _NOTHING

    def of_node(self, node: str) -> str:
        """Return the topic of one node, to which only agents of that name subscribe."""
        return f"{self.node}.{node}"

    def deploy_to(self, node: str) -> str:
        """Return the topic of the commands for one node: one topic for all would cost the square of the fleet."""
        return f"{self.deploy}.node.{node}"

    @property
    def destinations(self) -> tuple[str, ...]:
        """Every destination once: subscribe to all of them to see every message."""
        named = [getattr(self, field.name) for field in attrs.fields(type(self)) if field.name != "notices"]
        return tuple(dict.fromkeys(name for name in (*named, *self.notices.values()) if name))

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well. Also for values that are not text."""
        named = {field.name: getattr(self, field.name) for field in attrs.fields(TopicMap) if field.name != "notices"}
        named |= {f"notices.{kind}": destination for kind, destination in self.notices.items()}
        return tuple(
            f"{name}: expected a destination, e.g. /topic/deploykit.source"
            for name, destination in named.items()
            if not isinstance(destination, str)
            or not destination.isprintable()
            or not (destination or name in _MAY_BE_EMPTY)
        )


#: What the names of the original's topics for people begin with: its readers show each message there to people.
_FOR_PEOPLE: Final = "/topic/future.events."

#: The usual maps: our own names, and those of the original's fleet. There, started builds were lost on a topic without
#: a name; here they go where its older helper sent them. What it had no message for has a topic of its own: nothing but
#: lines for people may go to `future.events`. An agent's lines go where the original's updater announced what was new.
PRESETS: Mapping[str, TopicMap] = MappingProxyType(
    {
        "deploykit": TopicMap(),
        "future": TopicMap(
            source="/topic/future.git.commits",
            build="/topic/future.jenkins",
            build_success="/topic/future.jenkins.success",
            build_failure="/topic/future.jenkins.cake",
            package="/topic/future.package.updates",
            access="/topic/future.access.stage",
            mirror="/topic/future.mirror",
            deploy="/topic/future.deploy",
            report="/topic/future.deploy.report",
            node="/topic/future.node",
            inventory="/topic/future.inventory",
            progress="/topic/future.progress",
            notice="/topic/future.events.deploykit",
            notices=MappingProxyType(
                {
                    "git": "/topic/future.events.gitolite",
                    "svn": "/topic/future.events.svnserver",
                    "webhook": "/topic/future.events.gitlab",
                    "jenkins": "/topic/future.events.jenkins",
                    "packages": "/topic/future.events.repository",
                    "access": "/topic/future.events.stageaccess",
                    "mirror": "/topic/future.events.stompgit",
                    "deploy": "/topic/future.events.stompgit",
                    "agent": "/topic/future.events.stompgit",
                }
            ),
        ),
    }
)


def is_for_people(destination: str) -> bool:
    """Return whether the original's programs show people whatever is sent to a destination.

    >>> is_for_people("/topic/future.events.gitolite"), is_for_people("/topic/future.git.commits")
    (True, False)
    """
    return destination.startswith(_FOR_PEOPLE)


def with_preset(table: Mapping[str, object], *, legacy: bool = False) -> dict[str, object]:
    """Return a `[topics]` table with the preset it names (`preset = "future"`) under its own entries.

    Each of `notices` is an entry of its own: one that is set takes no other away.

    Args:
        table: as it was read.
        legacy: a table that names no preset has the original's topics.

    Raises:
        ValueError: there is no such preset.
    """
    own = dict(table)
    name = own.pop("preset", "future" if legacy else "deploykit")
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}")
    base = PRESETS[name]
    if isinstance(notices := own.get("notices"), Mapping):
        own["notices"] = {**base.notices, **notices}
    return {field.name: getattr(base, field.name) for field in attrs.fields(TopicMap)} | own


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
    "deploykit.access.reported.v1": "report",
    "deploykit.package.reported.v1": "report",
    "deploykit.mirror.updated.v1": "mirror",
    "deploykit.deploy.requested.v1": "deploy",
    "deploykit.deploy.reported.v1": "report",
    "deploykit.node.queried.v1": "node",
    "deploykit.node.described.v1": "inventory",
    "deploykit.deploy.progressed.v1": "progress",
    "deploykit.rollout.abort.v1": "deploy",
    "deploykit.rollout.reported.v1": "report",
    "deploykit.rollout.proposed.v1": "report",
    "deploykit.rollout.approved.v1": "deploy",
    "deploykit.rollout.approval-wanted.v1": "report",
    "deploykit.site.locked.v1": "deploy",
    "deploykit.site.unlocked.v1": "deploy",
    "deploykit.site.locks-wanted.v1": "node",
}
_BUILD_FINISHED: Final = "deploykit.build.finished.v1"
_NOTICE: Final = "deploykit.notice.v1"


def topics_of_class(kind: type[Message], topics: TopicMap) -> tuple[str, ...]:
    """Return every destination that `topic_of` gives to messages of a class; all there are for `Message` itself.

    >>> from deploykit.messages import BuildFinished
    >>> topics_of_class(BuildFinished, PRESETS["future"])
    ('/topic/future.jenkins.success', '/topic/future.jenkins.cake')
    """
    if not kind.TYPE:
        return topics.destinations
    if kind.TYPE == _BUILD_FINISHED:
        found = [topics.build_success or topics.build, topics.build_failure or topics.build]
    elif kind.TYPE == _NOTICE:
        found = [topics.notice, *topics.notices.values()]
    else:
        found = [getattr(topics, _LOGICAL.get(kind.TYPE, "notice"))]
    return tuple(dict.fromkeys(found))


def topic_of(message: Message, topics: TopicMap) -> str:
    """Return the destination for a message; one without a topic of its own goes to the notices.

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
