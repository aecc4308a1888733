"""Azure DevOps: service hooks of kind `git.push`, one or more changes of refs. The body has the event and the id."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from deploykit.messages.base import one_line
from deploykit.names import is_zero
from deploykit.web.receiver.forges.changes import both_ids, commits_of, pushed
from deploykit.web.receiver.forges.merges import WHY, merge_line
from deploykit.web.receiver.forges.reading import MAX_EVENT, acted_on, ignored, usable_id
from deploykit.web.receiver.forges.result import ForgeDelivery, Pushed
from deploykit.web.receiver.forges.values import PayloadValue, first_label

_MERGES: Final = frozenset({"git.pullrequest.created", "git.pullrequest.merged"})


def parse_azure(payload: PayloadValue) -> ForgeDelivery:
    """Return what a request of Azure DevOps means.

    Raises:
        WebhookRefused: a field that decides is missing or wrong.
    """
    event, delivery = one_line(payload.get("eventType").name(), MAX_EVENT), usable_id(payload.get("id").value)
    resource = payload.get("resource")
    if event == "git.push":
        where = resource.get("repository")
        name = f"{where.at('project', 'name').name()}/{where.get('name').name()}"
        return acted_on(delivery, event, name, _changes(resource), total=resource.get("refUpdates").size)
    repository = _name(resource.get("repository"))
    if event.startswith("git.pullrequest."):
        return ignored(delivery, event, WHY, repository, _merge(event, resource))
    return ignored(delivery, event, "no event about refs", repository)


def _changes(resource: PayloadValue) -> Iterator[Pushed]:
    who = first_label(resource.at("pushedBy", "displayName"), resource.at("pushedBy", "uniqueName"))
    updates = resource.get("refUpdates").listed()
    ids = [(u.get("name").ref(), *both_ids(u.get("oldObjectId"), u.get("newObjectId"))) for u in updates]
    # The commits of a request are one list: with several changes nothing says which they belong to.
    single = sum(not is_zero(new) for _ref, _old, new in ids) == 1
    commits = resource.get("commits") if single else PayloadValue(None)
    for ref, old, new in ids:
        yield pushed(
            ref,
            old,
            new,
            pusher=who,
            commits=commits_of(commits, new, oldest_first=False, id_key="commitId"),
            commit_count=commits.size,
        )


def _name(where: PayloadValue) -> PayloadValue:
    """Return `PROJECT/NAME` of a repository as a value; an absent one where it has none."""
    project, name = where.at("project", "name").value, where.get("name").value
    found = f"{project}/{name}" if isinstance(project, str) and isinstance(name, str) else None
    return PayloadValue(found, where.path)


def _merge(event: str, resource: PayloadValue) -> str:
    if event not in _MERGES:
        return ""
    where = _name(resource.get("repository")).label()
    source, target = (
        resource.get(key).label().removeprefix("refs/heads/") for key in ("sourceRefName", "targetRefName")
    )
    return merge_line(
        resource.get("title").label(),
        resource.get("status").label(),
        first_label(resource.at("createdBy", "displayName"), resource.at("createdBy", "uniqueName")),
        (where, source),
        (where, target),
    )


__all__ = ["parse_azure"]
