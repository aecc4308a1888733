"""GitLab: hooks of projects and groups, and system hooks.

Rules:

* The body names the event (`object_kind`, in system hooks `event_name`): it is signed, the header is not.
* A push of more than 3 branches, or of more than 3 tags, comes in no push event. A system hook's `repository_update`
  lists them: those lists count, shorter ones come as pushes, too.
* A tag's `after` is the id of the tag object, as git has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from deploykit.web.receiver.forges.changes import both_ids, commits_of, pushed
from deploykit.web.receiver.forges.merges import WHY, merge_line
from deploykit.web.receiver.forges.reading import acted_on, delivery_id, event_of, ignored
from deploykit.web.receiver.forges.result import ForgeDelivery, Pushed
from deploykit.web.receiver.forges.values import PayloadValue, first_label

#: `push_event_hooks_limit` as GitLab comes: branches, and tags, of one push that still have events of their own.
_LIMIT: Final = 3
_HEADERS: Final = {"Push Hook": "push", "Tag Push Hook": "tag_push", "Merge Request Hook": "merge_request"}


def parse_gitlab(headers: Mapping[str, str], payload: PayloadValue) -> ForgeDelivery:
    """Return what a request of GitLab means.

    Raises:
        WebhookRefused: a field that decides is missing or wrong.
    """
    delivery = delivery_id(headers, "webhook-id", "idempotency-key")
    event = first_label(payload.get("object_kind"), payload.get("event_name"))
    if not event:
        event = event_of(headers, "x-gitlab-event")
        event = _HEADERS.get(event, event)
    repository = payload.at("project", "path_with_namespace")
    match event:
        case "push" | "tag_push":
            return _push(delivery, event, payload)
        case "repository_update":
            return _update(delivery, event, payload)
        case "merge_request":
            return ignored(delivery, event, WHY, repository, _merge(payload))
    return ignored(delivery, event, "no event about refs", repository)


def _pusher(payload: PayloadValue) -> str:
    return first_label(payload.get("user_username"), payload.get("user_name"), payload.get("user_email"))


def _push(delivery: str, event: str, payload: PayloadValue) -> ForgeDelivery:
    repository = payload.at("project", "path_with_namespace").name()
    ref, (old, new) = payload.get("ref").ref(), both_ids(payload.get("before"), payload.get("after"))
    commits = payload.get("commits")
    commit = payload.get("checkout_sha").value
    push = pushed(
        ref,
        old,
        new,
        pusher=_pusher(payload),
        commits=commits_of(commits, commit if isinstance(commit, str) else new, oldest_first=True),
        commit_count=max(commits.size, payload.get("total_commits_count").count()),
    )
    return acted_on(delivery, event, repository, (push,))


def _update(delivery: str, event: str, payload: PayloadValue) -> ForgeDelivery:
    repository = payload.at("project", "path_with_namespace")
    pushes = tuple(_changes(payload))
    for prefix in ("refs/heads/", "refs/tags/"):
        alike = [push for push in pushes if push.ref.startswith(prefix)]
        if len(alike) <= _LIMIT:
            pushes = tuple(push for push in pushes if not push.ref.startswith(prefix))
    if not pushes:
        return ignored(delivery, event, "the same comes as a push", repository)
    return acted_on(delivery, event, repository.name(), pushes, total=payload.get("changes").size)


def _changes(payload: PayloadValue) -> Iterator[Pushed]:
    who = _pusher(payload)
    for change in payload.get("changes").listed():
        old, new = both_ids(change.get("before"), change.get("after"))
        yield pushed(change.get("ref").ref(), old, new, pusher=who)


def _merge(payload: PayloadValue) -> str:
    request = payload.get("object_attributes")
    action = request.get("action").label()
    if action and action not in ("open", "close", "reopen", "merge"):
        return ""
    source, target = request.get("source"), request.get("target")
    return merge_line(
        request.get("title").label(),
        request.get("state").label(),
        first_label(payload.at("user", "username"), payload.at("user", "name")),
        (source.get("namespace").label(), request.get("source_branch").label()),
        (target.get("namespace").label(), request.get("target_branch").label()),
    )


__all__ = ["parse_gitlab"]
