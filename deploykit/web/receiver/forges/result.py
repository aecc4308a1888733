"""What a forge's payload means, in words that are the same for all forges."""

from __future__ import annotations

import attrs

from deploykit.messages.source import Commit
from deploykit.names import ObjectId, RefName


@attrs.frozen(kw_only=True, slots=True)
class Pushed:
    """One ref that was created, moved or deleted.

    Args:
        ref: its full name.
        old: zeros where the ref was created, and where it was deleted and the forge does not send what it was.
        new: zeros where it was deleted. Of an annotated tag the id of the tag object, where the forge sends that.
        forced: whether the forge says so; most do not.
        pusher: the forge's name of who pushed; may be empty.
        commits: as many as a message carries, newest first; none of a deleted ref.
        commit_count: how many there were, as far as the forge says.
    """

    ref: RefName
    old: ObjectId
    new: ObjectId
    forced: bool = False
    pusher: str = ""
    commits: tuple[Commit, ...] = ()
    commit_count: int = 0


@attrs.frozen(kw_only=True, slots=True)
class ForgeDelivery:
    """One request of a forge, read.

    Args:
        id: the forge's own id of this delivery; empty where it sent none that is usable.
        event: the forge's own name of the event.
        ignored: why nothing of it is published; empty if it counts.
        repository: the forge's own name of the repository, `group/name`; empty where an ignored event names none.
        pushes: what happened to which refs; empty if it is ignored.
        notice: one line for people; empty where there is nothing to say.
    """

    event: str
    id: str = ""
    ignored: str = ""
    repository: str = ""
    pushes: tuple[Pushed, ...] = ()
    notice: str = ""


__all__ = ["ForgeDelivery", "Pushed"]
