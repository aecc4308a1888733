"""Payloads of Bitbucket, Azure DevOps and a sender of one's own; a part of `forgepayloads`."""

from __future__ import annotations

from deploykit.testing.forgedevents import ELSEWHERE, ZERO, ForgedChange, ForgedCommit, ForgedEvent

# -- Bitbucket ---------------------------------------------------------------------------------------------------------


def _cloud_commit(commit: ForgedCommit) -> dict[str, object]:
    author = {"type": "author", "raw": f"{commit.author} <{commit.mail}>"}
    return {"type": "commit", "hash": commit.id, "date": commit.time, "message": commit.message, "author": author}


def _cloud_side(change: ForgedChange, oid: str) -> dict[str, object] | None:
    if oid == ZERO:
        return None
    target = {"type": "commit", "hash": oid, "message": "Serve\n", "date": "2026-11-30T09:15:00+00:00"}
    return {"type": change.kind, "name": change.short, "target": target, "links": {}}


def _cloud_repository(event: ForgedEvent) -> dict[str, object]:
    links = {"html": {"href": f"{ELSEWHERE}/{event.repository}"}}
    return {"type": "repository", "scm": "git", "full_name": event.repository, "name": event.name, "links": links}


def _actor(event: ForgedEvent) -> dict[str, object]:
    return {"type": "user", "nickname": event.pusher, "display_name": event.pusher.title(), "uuid": "{87bb15eb-47c1}"}


def bitbucket_push(event: ForgedEvent) -> dict[str, object]:
    """Return `repo:push`: at most 5 commits, newest first; null where there is no object."""
    changes = [
        {
            "old": _cloud_side(change, change.old),
            "new": _cloud_side(change, change.new),
            "created": change.old == ZERO,
            "closed": change.new == ZERO,
            "forced": event.forced,
            "truncated": len(event.commits) > 5,
            "commits": [] if change.new == ZERO else [_cloud_commit(c) for c in list(reversed(event.commits))[:5]],
            "links": {},
        }
        for change in event.changes
    ]
    return {"push": {"changes": changes}, "repository": _cloud_repository(event), "actor": _actor(event)}


def bitbucket_merge(event: ForgedEvent) -> dict[str, object]:
    """Return `pullrequest:fulfilled`."""
    sides = {
        side: {"branch": {"name": branch}, "commit": {"hash": "0704fc5beccc"}, "repository": _cloud_repository(event)}
        for side, branch in (("source", "topic/page"), ("destination", "main"))
    }
    request = {"id": 3, "title": event.title, "state": "MERGED", **sides}
    return {"pullrequest": request, "repository": _cloud_repository(event), "actor": _actor(event)}


def _dc_repository(event: ForgedEvent) -> dict[str, object]:
    project = {"key": event.group, "id": 2, "name": event.group.title(), "public": False, "type": "NORMAL"}
    return {"slug": event.name, "id": 9, "name": event.name.title(), "scmId": "git", "project": project}


def _dc_actor(event: ForgedEvent) -> dict[str, object]:
    return {"name": event.pusher, "slug": event.pusher, "displayName": event.pusher.title(), "id": 1, "active": True}


def bitbucket_dc_push(event: ForgedEvent) -> dict[str, object]:
    """Return `repo:refs_changed`: full names and zeros, no commits."""
    changes = [
        {
            "ref": {"id": change.ref, "displayId": change.short, "type": change.kind.upper()},
            "refId": change.ref,
            "fromHash": change.old,
            "toHash": change.new,
            "type": "ADD" if change.old == ZERO else "DELETE" if change.new == ZERO else "UPDATE",
        }
        for change in event.changes
    ]
    about = {"eventKey": "repo:refs_changed", "date": "2026-11-30T09:15:00+0000"}
    return {**about, "actor": _dc_actor(event), "repository": _dc_repository(event), "changes": changes}


def bitbucket_dc_merge(event: ForgedEvent) -> dict[str, object]:
    """Return `pr:merged`."""
    sides = {
        side: {"id": f"refs/heads/{branch}", "displayId": branch, "repository": _dc_repository(event)}
        for side, branch in (("fromRef", "topic/page"), ("toRef", "main"))
    }
    request = {"id": 3, "title": event.title, "state": "MERGED", **sides}
    return {"eventKey": "pr:merged", "actor": _dc_actor(event), "pullRequest": request}


# -- Azure DevOps, and a sender of one's own ---------------------------------------------------------------------------


def _azure_repository(event: ForgedEvent) -> dict[str, object]:
    project = {"id": "6ce954b1-ce1f-45d1-b94d-e6bf2464ba2c", "name": event.group, "state": "wellFormed"}
    url = f"{ELSEWHERE}/_git/{event.name}"
    return {"id": "278d5cd2-584d-4b63-824a-2ba458937249", "name": event.name, "project": project, "remoteUrl": url}


def azure_push(event: ForgedEvent) -> dict[str, object]:
    """Return `git.push`: several changes, newest commit first."""
    commits = [
        {
            "commitId": commit.id,
            "author": {"name": commit.author, "email": commit.mail, "date": commit.time},
            "comment": commit.message.rstrip("\n"),
            "url": f"{ELSEWHERE}/commit/{commit.id}",
        }
        for commit in reversed(event.commits)
    ]
    updates = [{"name": c.ref, "oldObjectId": c.old, "newObjectId": c.new} for c in event.changes]
    resource = {
        "commits": commits,
        "refUpdates": updates,
        "repository": _azure_repository(event),
        "pushedBy": {"id": "7", "displayName": event.pusher, "uniqueName": "ada@example.org"},
        "pushId": 14,
        "date": "2026-11-30T09:15:00.3309587Z",
    }
    about = {"id": event.delivery, "eventType": "git.push", "publisherId": "tfs", "message": {"text": "pushed"}}
    return {**about, "resource": resource, "resourceVersion": "1.0", "createdDate": "2026-11-30T09:15:01.0379153Z"}


def azure_merge(event: ForgedEvent) -> dict[str, object]:
    """Return `git.pullrequest.merged`."""
    resource = {
        "repository": _azure_repository(event),
        "pullRequestId": 3,
        "status": "completed",
        "title": event.title,
        "createdBy": {"displayName": event.pusher},
        "sourceRefName": "refs/heads/topic/page",
        "targetRefName": "refs/heads/main",
    }
    return {"id": event.delivery, "eventType": "git.pullrequest.merged", "publisherId": "tfs", "resource": resource}


def generic_push(event: ForgedEvent) -> dict[str, object]:
    """Return what a sender of one's own may send: the names of the mapping as it comes."""
    change = event.changes[0]
    about = {"id": event.delivery, "repository": event.repository, "pusher": event.pusher}
    return {**about, "ref": change.ref, "old": change.old, "new": change.new}
