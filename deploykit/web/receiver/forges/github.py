"""GitHub. A push says all: `create` and `delete` come beside it and add nothing."""

from __future__ import annotations

from collections.abc import Mapping

from deploykit.web.receiver.forges.changes import both_ids, commits_of, pushed
from deploykit.web.receiver.forges.merges import WHY, pull_request_line
from deploykit.web.receiver.forges.reading import acted_on, delivery_id, event_of, ignored
from deploykit.web.receiver.forges.result import ForgeDelivery
from deploykit.web.receiver.forges.values import PayloadValue, first_label


def parse_github(headers: Mapping[str, str], payload: PayloadValue) -> ForgeDelivery:
    """Return what a request of GitHub means.

    Raises:
        WebhookRefused: a field that decides is missing or wrong.
    """
    event, delivery = event_of(headers, "x-github-event"), delivery_id(headers, "x-github-delivery")
    repository = payload.at("repository", "full_name")
    match event:
        case "push":
            return push_event(delivery, event, payload, oldest_first=True)
        case "ping":
            return ignored(delivery, event, "it only asks whether we are here", repository)
        case "create" | "delete":
            return ignored(delivery, event, "the same comes as a push", repository)
        case "pull_request":
            return ignored(delivery, event, WHY, repository, pull_request_line(payload))
    return ignored(delivery, event, "no event about refs", repository)


def push_event(delivery: str, event: str, payload: PayloadValue, *, oldest_first: bool) -> ForgeDelivery:
    """Return what a `push` in GitHub's form means; Gitea, Forgejo and Gogs have the same form.

    Raises:
        WebhookRefused: a field that decides is missing or wrong.
    """
    repository = payload.at("repository", "full_name").name()
    ref, (old, new) = payload.get("ref").ref(), both_ids(payload.get("before"), payload.get("after"))
    commits = payload.get("commits")
    pusher, sender = payload.get("pusher"), payload.get("sender")
    push = pushed(
        ref,
        old,
        new,
        forced=payload.get("forced").value is True,
        pusher=first_label(
            pusher.get("name"), pusher.get("login"), pusher.get("username"), sender.get("login"), sender.get("username")
        ),
        commits=commits_of(commits, new, oldest_first=oldest_first),
        commit_count=max(commits.size, payload.get("total_commits").count()),
    )
    return acted_on(delivery, event, repository, (push,))


__all__ = ["parse_github", "push_event"]
