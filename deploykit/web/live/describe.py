"""What open pages hear of the messages in a batch: few, small events. Pure.

Rules:

* An event says where to look, and the line of the message that people read. It never carries output or a payload.
* Of the lines that a script prints, and of nodes that describe themselves, a batch makes one event for each place.
* When all nodes answer at once, that is one event, and one for each site.
* What nobody is shown makes none: questions, and requests for access.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

import attrs

from deploykit.messages import (
    AccessReported,
    ApprovalWanted,
    BuildFinished,
    BuildRequested,
    BuildStarted,
    DeployProgressed,
    DeployReported,
    DeployRequested,
    Message,
    MirrorUpdated,
    NodeDescribed,
    Notice,
    PackagePublished,
    RefUpdated,
    RevisionCommitted,
    RolloutAbort,
    RolloutApproved,
    RolloutProposed,
    RolloutReported,
    SiteLocked,
    SiteUnlocked,
)
from deploykit.web.live.events import EventKind
from deploykit.web.projection.heard import Heard

#: So many nodes of one batch are named one by one.
MOST_NODES: Final = 20
_KINDS: Final[Mapping[EventKind, tuple[type[Message], ...]]] = {
    "push": (RefUpdated, RevisionCommitted),
    "build": (BuildRequested, BuildStarted, BuildFinished),
    "mirror": (MirrorUpdated,),
    "step": (DeployProgressed,),
    "deploy": (
        *(DeployRequested, DeployReported, RolloutReported, RolloutAbort, RolloutApproved, RolloutProposed),
        ApprovalWanted,
    ),
    "access": (AccessReported,),
    "lock": (SiteLocked, SiteUnlocked),
    "notice": (Notice, PackagePublished),
}
#: Characters of the line in an event.
_LINE: Final = 300


@attrs.frozen(kw_only=True, slots=True)
class EventDraft:
    """An event before it has its number. `data` as in `LiveEvent`."""

    kind: EventKind
    time: datetime
    site: str = ""
    correlation: str = ""
    data: Mapping[str, object] = attrs.field(factory=dict, eq=dict, hash=False)


def describe(batch: Iterable[Heard]) -> tuple[EventDraft, ...]:
    """Return the events of a batch, in its order; what is said once for many messages comes last."""
    events: list[EventDraft] = []
    logs: dict[tuple[str, str], Heard] = {}
    nodes: dict[str, Heard] = {}
    for heard in batch:
        match heard.message:
            case DeployProgressed(state="output") as printed:
                logs[printed.rollout or printed.request, printed.node] = heard
            case NodeDescribed() as described:
                nodes[described.node] = heard
            case message:
                kind = _kind(message)
                if kind is not None:
                    events.append(_event(kind, heard, text=message.summary[:_LINE]))
    events += [_event("log", heard) for heard in logs.values()]
    events += _of_nodes(nodes)
    return tuple(events)


def _kind(message: Message) -> EventKind | None:
    return next((kind for kind, classes in _KINDS.items() if isinstance(message, classes)), None)


def _event(kind: EventKind, heard: Heard, **more: object) -> EventDraft:
    message = heard.message
    data: dict[str, object] = {name: str(value) for name in ("repo", "node") if (value := _field(message, name))}
    if (rollout := _rollout_of(message)) is not None:
        data["rollout"] = rollout
    return EventDraft(
        kind=kind,
        time=heard.received,
        site=_field(message, "site"),
        correlation=message.correlation_id,
        data=data | more,
    )


def _field(message: Message, name: str) -> str:
    value = getattr(message, name, None)
    return value if isinstance(value, str) else ""


def _rollout_of(message: Message) -> str | None:
    """Return the rollout that a message is of; a command of none is one of its own, under the command's id."""
    match message:
        case DeployRequested():
            return message.rollout or message.id
        case DeployProgressed():
            return message.rollout or message.request
        case DeployReported():
            return message.request
        case RolloutReported() | RolloutAbort() | RolloutApproved() | RolloutProposed() | ApprovalWanted():
            return message.rollout
    return None


def _of_nodes(nodes: Mapping[str, Heard]) -> Iterator[EventDraft]:
    if not nodes:
        return
    last = list(nodes.values())[-1]
    if len(nodes) > MOST_NODES:
        yield EventDraft(kind="node", time=last.received, data={"nodes": len(nodes)})
    else:
        yield from (EventDraft(kind="node", time=heard.received, data={"node": node}) for node, heard in nodes.items())
    sites = {
        str(state.site): None
        for heard in nodes.values()
        if isinstance(heard.message, NodeDescribed)
        for state in heard.message.sites
    }
    yield from (EventDraft(kind="node", time=last.received, site=site) for site in sites)


__all__ = ["MOST_NODES", "EventDraft", "describe"]
