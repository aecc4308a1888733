"""Bitbucket, Cloud and Data Center: several changes of refs in one request.

Rules:

* Cloud: null stands for "no object", names are short. It sends the commit that a tag points to, and no tag object.
* Cloud lists at most 5 commits (`truncated`), and nothing says how many there were: those listed are counted.
* Data Center: full names, zeros; at most 5 commits, none in older versions. `mirror:repo_synchronized` has the same
  form; with `refLimitExceeded` it lists nothing, and only people can be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from deploykit.names import ObjectId
from deploykit.web.receiver.forges.changes import both_ids, commits_of, pushed
from deploykit.web.receiver.forges.merges import WHY, merge_line
from deploykit.web.receiver.forges.reading import acted_on, delivery_id, event_of, ignored
from deploykit.web.receiver.forges.result import ForgeDelivery, Pushed
from deploykit.web.receiver.forges.values import PayloadValue, first_label

_PREFIXES: Final = {"branch": "refs/heads/", "tag": "refs/tags/", "annotated_tag": "refs/tags/"}
_MERGES: Final = {
    "pullrequest:created": "created",
    "pullrequest:fulfilled": "merged",
    "pullrequest:rejected": "declined",
    "pr:opened": "opened",
    "pr:merged": "merged",
    "pr:declined": "declined",
    "pr:deleted": "deleted",
}


def parse_bitbucket(headers: Mapping[str, str], payload: PayloadValue) -> ForgeDelivery:
    """Return what a request of Bitbucket Cloud means.

    Raises:
        WebhookRefused: a field that decides is missing or wrong.
    """
    event, delivery = event_of(headers, "x-event-key"), delivery_id(headers, "x-request-uuid")
    repository = payload.at("repository", "full_name")
    if event == "repo:push":
        total = payload.at("push", "changes").size
        return acted_on(delivery, event, repository.name(), _cloud_changes(payload), total=total)
    if event.startswith("pullrequest:"):
        return ignored(delivery, event, WHY, repository, _cloud_merge(event, payload))
    return ignored(delivery, event, "no event about refs", repository)


def _cloud_changes(payload: PayloadValue) -> Iterator[Pushed]:
    actor = payload.get("actor")
    who = first_label(actor.get("nickname"), actor.get("username"), actor.get("display_name"))
    sides = ((change, old, new) for change in payload.at("push", "changes").listed() for old, new in _sides(change))
    for change, old, new in sides:
        side = new if new.present else old
        kind = side.get("type").text()
        if kind not in _PREFIXES:
            raise side.get("type").refused("neither branch nor tag", "")
        after = _target(new)
        commits = change.get("commits")
        yield pushed(
            side.get("name").ref(_PREFIXES[kind]),
            _target(old),
            after,
            forced=change.get("forced").value is True,
            pusher=who,
            commits=commits_of(commits, after, oldest_first=False, id_key="hash"),
            commit_count=commits.size,
        )


def _sides(change: PayloadValue) -> Iterator[tuple[PayloadValue, PayloadValue]]:
    """Yield what a ref was and is; of one that has another name now, that one is gone and one is new."""
    old, new = change.get("old"), change.get("new")
    if _full_name(old) and _full_name(new) and _full_name(old) != _full_name(new):
        nothing = PayloadValue(None)
        yield old, nothing
        yield nothing, new
    else:
        yield old, new


def _full_name(side: PayloadValue) -> str:
    """Return the name of a ref as git has it; empty where it cannot be read."""
    kind, name = side.get("type").value, side.get("name").value
    return _PREFIXES[kind] + name if isinstance(name, str) and isinstance(kind, str) and kind in _PREFIXES else ""


def _target(side: PayloadValue) -> ObjectId | None:
    return side.at("target", "hash").object_id() if side.present else None


def _cloud_merge(event: str, payload: PayloadValue) -> str:
    state, request, actor = _MERGES.get(event), payload.get("pullrequest"), payload.get("actor")
    if state is None:
        return ""
    source, target = request.get("source"), request.get("destination")
    return merge_line(
        request.get("title").label(),
        state,
        first_label(actor.get("nickname"), actor.get("username"), actor.get("display_name")),
        (source.at("repository", "full_name").label(), source.at("branch", "name").label()),
        (target.at("repository", "full_name").label(), target.at("branch", "name").label()),
    )


# -- Data Center -------------------------------------------------------------------------------------------------------


def parse_bitbucket_dc(headers: Mapping[str, str], payload: PayloadValue) -> ForgeDelivery:
    """Return what a request of Bitbucket Data Center (once Server, Stash) means.

    Raises:
        WebhookRefused: a field that decides is missing or wrong.
    """
    event = payload.get("eventKey").label() or event_of(headers, "x-event-key")
    delivery = delivery_id(headers, "x-request-id")
    if event in ("repo:refs_changed", "mirror:repo_synchronized"):
        where = payload.get("repository")
        name = f"{where.at('project', 'key').name()}/{where.get('slug').name()}"
        if payload.get("refLimitExceeded").value is True and not payload.get("changes").size:
            why = "it lists none of the changed refs, for they are too many"
            return ignored(delivery, event, why, _dc_name(where), f"{name}: many refs changed, none is announced")
        return acted_on(delivery, event, name, _dc_changes(payload), total=payload.get("changes").size)
    if event == "diagnostics:ping":
        return ignored(delivery, event, "it only asks whether we are here", _dc_name(payload.get("repository")))
    if event.startswith("pr:"):
        request = payload.get("pullRequest")
        repository = _dc_name(request.at("toRef", "repository"))
        return ignored(delivery, event, WHY, repository, _dc_merge(event, payload))
    return ignored(delivery, event, "no event about refs", _dc_name(payload.get("repository")))


def _dc_changes(payload: PayloadValue) -> Iterator[Pushed]:
    who = _dc_user(payload)
    changes = payload.get("changes").listed()
    # The commits of a request are one list: with several changes nothing says which they belong to.
    commits = payload.get("commits") if len(changes) == 1 else PayloadValue(None)
    for change in changes:
        ref = change.get("refId") if change.get("refId").present else change.at("ref", "id")
        old, new = both_ids(change.get("fromHash"), change.get("toHash"))
        yield pushed(
            ref.ref(),
            old,
            new,
            pusher=who,
            commits=commits_of(commits, new, oldest_first=False),
            commit_count=commits.size,
        )


def _dc_user(payload: PayloadValue) -> str:
    actor = payload.get("actor")
    return first_label(actor.get("name"), actor.get("slug"), actor.get("displayName"))


def _dc_name(where: PayloadValue) -> PayloadValue:
    """Return `KEY/SLUG` of a repository as a value; an absent one where it has none."""
    key, slug = where.at("project", "key").value, where.get("slug").value
    found = f"{key}/{slug}" if isinstance(key, str) and isinstance(slug, str) else None
    return PayloadValue(found, where.path)


def _dc_merge(event: str, payload: PayloadValue) -> str:
    state, request = _MERGES.get(event), payload.get("pullRequest")
    if state is None:
        return ""
    sides = [
        (_dc_name(side.get("repository")).label(), side.get("displayId").label())
        for side in (request.get("fromRef"), request.get("toRef"))
    ]
    return merge_line(request.get("title").label(), state, _dc_user(payload), sides[0], sides[1])


__all__ = ["parse_bitbucket", "parse_bitbucket_dc"]
