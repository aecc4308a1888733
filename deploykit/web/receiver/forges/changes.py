"""Changes of refs as forges list them, made alike: zeros for "no object", commits newest first, each ref once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

import attrs

from deploykit.errors import InvalidName
from deploykit.messages.source import MAX_COMMITS, NAME_TEXT, Commit
from deploykit.names import ZERO_ID, ZERO_ID_SHA256, ObjectId, RefName, is_zero, parse_object_id
from deploykit.web.receiver.forges.result import Pushed
from deploykit.web.receiver.forges.values import PayloadValue, first_label

#: Items of a list of commits that are looked at: some may be unreadable.
_LOOK_AT: Final = 2 * MAX_COMMITS


def pushed(
    ref: RefName,
    old: ObjectId | None,
    new: ObjectId | None,
    *,
    forced: bool = False,
    pusher: str = "",
    commits: tuple[Commit, ...] = (),
    commit_count: int = 0,
) -> Pushed:
    """Return one change; None stands for "no object". A deleted ref has no commits; only a moved one is forced."""
    old, new = _alike(old, new)
    gone = is_zero(new)
    return Pushed(
        ref=ref,
        old=old,
        new=new,
        forced=forced and not gone and not is_zero(old),
        pusher=pusher,
        commits=() if gone else commits,
        commit_count=0 if gone else max(commit_count, len(commits)),
    )


def _alike(old: ObjectId | None, new: ObjectId | None) -> tuple[ObjectId, ObjectId]:
    """Return both ids, zeros as long as the other id is: a repository has one kind of them."""
    sizes = [len(oid) for oid in (old, new) if oid is not None and not is_zero(oid)]
    sizes = sizes or [len(oid) for oid in (old, new) if oid is not None]
    zeros = ZERO_ID_SHA256 if sizes and sizes[0] == len(ZERO_ID_SHA256) else ZERO_ID
    return (zeros if old is None or is_zero(old) else old), (zeros if new is None or is_zero(new) else new)


def both_ids(old: PayloadValue, new: PayloadValue) -> tuple[ObjectId, ObjectId]:
    """Return what a ref was and what it is.

    Raises:
        WebhookRefused: one is no object id, or both say that there is none.
    """
    ids = old.object_id(), new.object_id()
    if is_zero(ids[0]) and is_zero(ids[1]):
        raise new.refused("zeros, as the old id", "expected what the ref was, what it is, or both")
    return ids


def each_ref_once(pushes: Iterable[Pushed]) -> tuple[Pushed, ...]:
    """Return the changes, of a ref that is listed again its way from the first to the last."""
    found: dict[RefName, Pushed] = {}
    for push in pushes:
        before = found.get(push.ref)
        found[push.ref] = (
            attrs.evolve(push, old=before.old, forced=push.forced or before.forced) if before is not None else push
        )
    return tuple(found.values())


# -- commits -----------------------------------------------------------------------------------------------------------


def commits_of(listed: PayloadValue, new: object, *, oldest_first: bool, id_key: str = "id") -> tuple[Commit, ...]:
    """Return the newest commits of a list, newest first; what cannot be read is left out.

    Args:
        listed: the list; may be absent or anything else.
        new: where the ref points to now. Found at one end of the list, it shows the order.
        oldest_first: the order where that does not show.
        id_key: under which key a commit has its id.
    """
    if listed.size > 1:
        last = listed.at(str(listed.size - 1), id_key).value
        first = listed.at("0", id_key).value
        if (first == new) != (last == new):
            oldest_first = last == new
    entries = listed.newest(_LOOK_AT, reverse=oldest_first)
    read = (commit for commit in (_commit(entry, id_key) for entry in entries) if commit is not None)
    return tuple(islice(read, MAX_COMMITS))


def _commit(entry: PayloadValue, id_key: str) -> Commit | None:
    try:
        commit = parse_object_id(entry.get(id_key).value)
    except InvalidName:
        return None
    return Commit(
        id=commit,
        author=_author(entry.get("author")),
        time=next(_times(entry), ""),
        message=entry.get("message").prose() or entry.get("comment").prose(),
    )


def _author(author: PayloadValue) -> str:
    """Return `NAME <MAIL>` of an author in any forge's form."""
    raw = author.get("raw").label()
    if raw:
        return raw
    name = first_label(author.get("name"), author.get("displayName"), author.get("username"))
    mail = first_label(author.get("email"), author.get("emailAddress"))
    return (f"{name} <{mail}>" if name and mail else name or mail)[:NAME_TEXT]


def _times(entry: PayloadValue) -> Iterator[str]:
    """Yield the times of a commit in any forge's form."""
    for value in (entry.get("timestamp"), entry.get("date"), entry.get("authorTimestamp"), entry.at("author", "date")):
        time = value.time()
        if time:
            yield time


__all__ = ["both_ids", "commits_of", "each_ref_once", "pushed"]
