"""Gitea, Forgejo and Gogs: GitHub's form of a push, but some changes of refs come in no push.

Rules:

* Gogs: a new tag comes only as `create`, every deleted ref only as `delete`.
* Gitea, Forgejo: a deleted branch comes only as `delete`; a deleted tag, and everything new, as a push, too.
* `create` and `delete` hold the short name of a ref, and `delete` does not hold what the ref was: zeros stand for it.
* All three send `X-GitHub-*` as well; their own headers count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from deploykit.web.receiver.forges.changes import pushed
from deploykit.web.receiver.forges.github import push_event
from deploykit.web.receiver.forges.merges import WHY, pull_request_line
from deploykit.web.receiver.forges.reading import acted_on, delivery_id, event_of, ignored
from deploykit.web.receiver.forges.result import ForgeDelivery
from deploykit.web.receiver.forges.values import PayloadValue, first_label

Family = Literal["gitea", "forgejo", "gogs"]
_PREFIXES: Final = {"branch": "refs/heads/", "tag": "refs/tags/"}
#: (event, kind of ref) of which no push comes beside.
_ALONE: Final[Mapping[Family, frozenset[tuple[str, str]]]] = {
    "gitea": frozenset({("delete", "branch")}),
    "forgejo": frozenset({("delete", "branch")}),
    "gogs": frozenset({("create", "tag"), ("delete", "branch"), ("delete", "tag")}),
}
#: The own name in headers first; a fork may still send only the names of what it came from.
_NAMES: Final[Mapping[Family, tuple[str, ...]]] = {
    "gitea": ("gitea", "gogs", "github"),
    "forgejo": ("forgejo", "gitea", "gogs", "github"),
    "gogs": ("gogs", "github"),
}


def parse_gitea(forge: Family, headers: Mapping[str, str], payload: PayloadValue) -> ForgeDelivery:
    """Return what a request of Gitea, Forgejo or Gogs means.

    Raises:
        WebhookRefused: a field that decides is missing or wrong.
    """
    names = _NAMES[forge]
    event = event_of(headers, *(f"x-{name}-event" for name in names))
    delivery = delivery_id(headers, *(f"x-{name}-delivery" for name in names))
    repository = payload.at("repository", "full_name")
    match event:
        case "push":
            return push_event(delivery, event, payload, oldest_first=False)
        case "create" | "delete":
            return _ref_event(forge, delivery, event, payload)
        case "pull_request":
            return ignored(delivery, event, WHY, repository, pull_request_line(payload))
    return ignored(delivery, event, "no event about refs", repository)


def _ref_event(forge: Family, delivery: str, event: str, payload: PayloadValue) -> ForgeDelivery:
    kind = payload.get("ref_type")
    prefix = _PREFIXES.get(kind.text())
    if prefix is None:
        raise kind.refused("neither branch nor tag", "")
    repository = payload.at("repository", "full_name")
    if (event, kind.text()) not in _ALONE[forge]:
        return ignored(delivery, event, "the same comes as a push", repository)
    sha = payload.get("sha")
    if event == "delete" and sha.present:
        # Headers are not signed: a signed `create` must not delete because somebody changed its header.
        raise sha.refused("stands in no delete event", "the header names another event than the body holds")
    push = pushed(
        payload.get("ref").ref(prefix),
        None,
        sha.object_id() if event == "create" else None,
        pusher=first_label(payload.at("sender", "login"), payload.at("sender", "username")),
    )
    return acted_on(delivery, event, repository.name(), (push,))


__all__ = ["Family", "parse_gitea"]
