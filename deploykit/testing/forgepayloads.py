"""Payloads as forges build them, of made-up projects: the JSON behind `deploykit.testing.forges.forged`.

Every payload holds what surrounds the fields that a receiver reads, clone URLs that lead elsewhere among it: a receiver
that reads more than it should is then seen to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

import attrs

ZERO: Final = "0" * 40
#: Where every clone URL of a payload leads: to no place that a receiver should ever ask.
ELSEWHERE: Final = "https://elsewhere.invalid"


class ForgedCommit(NamedTuple):
    """One commit of a forged push."""

    id: str
    message: str = "Serve the new page\n"
    author: str = "Ada Byron"
    mail: str = "ada@example.org"
    time: str = "2026-11-30T09:15:00+00:00"


class ForgedChange(NamedTuple):
    """One ref of a forged push: full name, what it was, what it is; zeros where there is none."""

    ref: str
    old: str
    new: str

    @property
    def short(self) -> str:
        """The ref without what is before the branch's or tag's name."""
        return self.ref.split("/", 2)[-1]

    @property
    def kind(self) -> str:
        """Whether it is a branch or a tag."""
        return "tag" if self.ref.startswith("refs/tags/") else "branch"


@attrs.frozen(kw_only=True, slots=True)
class ForgedEvent:
    """What happened, before any forge puts it into its own form.

    Args:
        repository: the forge's name; `group/sub/name` for GitLab, `PROJECT/name` for Azure and Bitbucket DC.
        changes: of refs; forges that send a request for each take the first.
        commits: oldest first.
        total: how many commits there were, where a forge lists fewer.
        checkout: the commit of an annotated tag; empty: the new id itself.
    """

    repository: str
    changes: Sequence[ForgedChange]
    commits: Sequence[ForgedCommit]
    total: int
    pusher: str
    forced: bool
    checkout: str
    delivery: str
    title: str = "Serve the new page"

    @property
    def name(self) -> str:
        """The last part of the repository's name."""
        return self.repository.rpartition("/")[2]

    @property
    def group(self) -> str:
        """All but the last part of the repository's name."""
        return self.repository.rpartition("/")[0]


def _commit(commit: ForgedCommit, event: ForgedEvent) -> dict[str, object]:
    who = {"name": commit.author, "email": commit.mail, "username": event.pusher}
    return {
        "id": commit.id,
        "tree_id": commit.id[::-1],
        "distinct": True,
        "message": commit.message,
        "timestamp": commit.time,
        "url": f"{ELSEWHERE}/{event.repository}/commit/{commit.id}",
        "author": who,
        "committer": who,
        "added": ["static/page.html"],
        "removed": [],
        "modified": ["README"],
    }


# -- GitHub and those that follow it -----------------------------------------------------------------------------------


def _repository(event: ForgedEvent) -> dict[str, object]:
    return {
        "id": 4711,
        "name": event.name,
        "full_name": event.repository,
        "owner": {"login": event.group, "name": event.group, "username": event.group, "email": "", "id": 12},
        "private": True,
        "html_url": f"{ELSEWHERE}/{event.repository}",
        "clone_url": f"{ELSEWHERE}/{event.repository}.git",
        "ssh_url": f"git@elsewhere.invalid:{event.repository}.git",
        "url": f"{ELSEWHERE}/{event.repository}",
        "default_branch": "main",
        "created_at": 1732900000,
    }


def _user(event: ForgedEvent) -> dict[str, object]:
    return {"id": 7, "login": event.pusher, "username": event.pusher, "full_name": "", "email": "ada@example.org"}


def github_push(event: ForgedEvent) -> dict[str, object]:
    """Return GitHub's `push`: oldest commit first, no total."""
    change = event.changes[0]
    gone = change.new == ZERO
    commits = [] if gone else [_commit(c, event) for c in event.commits]
    return {
        "ref": change.ref,
        "before": change.old,
        "after": change.new,
        "created": change.old == ZERO,
        "deleted": gone,
        "forced": event.forced,
        "base_ref": None,
        "compare": f"{ELSEWHERE}/{event.repository}/compare/{change.old[:12]}...{change.new[:12]}",
        "commits": commits,
        "head_commit": commits[-1] if commits else None,
        "repository": _repository(event),
        "pusher": {"name": event.pusher, "email": "ada@example.org"},
        "sender": _user(event),
    }


def gitea_push(event: ForgedEvent) -> dict[str, object]:
    """Return the `push` of Gitea, Forgejo and Gogs: newest commit first, with a total."""
    change = event.changes[0]
    commits = [] if change.new == ZERO else [_commit(c, event) for c in reversed(event.commits)]
    return {
        "ref": change.ref,
        "before": change.old,
        "after": change.new,
        "compare_url": f"{ELSEWHERE}/{event.repository}/compare/{change.old[:12]}...{change.new[:12]}",
        "commits": commits,
        "total_commits": event.total,
        "head_commit": commits[0] if commits else None,
        "repository": _repository(event),
        "pusher": _user(event),
        "sender": _user(event),
    }


def github_create(event: ForgedEvent) -> dict[str, object]:
    """Return GitHub's `create`, which holds a short name and no id."""
    change = event.changes[0]
    about = {
        "ref": change.short,
        "ref_type": change.kind,
        "master_branch": "main",
        "description": "",
        "pusher_type": "user",
    }
    return {**about, "repository": _repository(event), "sender": _user(event)}


def gitea_create(event: ForgedEvent) -> dict[str, object]:
    """Return the `create` of Gitea, Forgejo and Gogs, which has the new id."""
    change = event.changes[0]
    about = {"sha": change.new, "ref": change.short, "ref_type": change.kind, "default_branch": "main"}
    return {**about, "repository": _repository(event), "sender": _user(event)}


def ref_delete(event: ForgedEvent) -> dict[str, object]:
    """Return `delete`, which all of them have alike: a short name, and nothing of what the ref was."""
    change = event.changes[0]
    about = {"ref": change.short, "ref_type": change.kind, "pusher_type": "user"}
    return {**about, "repository": _repository(event), "sender": _user(event)}


def github_ping(event: ForgedEvent) -> dict[str, object]:
    """Return what GitHub sends when a hook was made."""
    hook = {"type": "Repository", "id": 5, "active": True, "events": ["push"], "config": {"content_type": "json"}}
    return {"zen": "Ask once.", "hook_id": 5, "hook": hook, "repository": _repository(event), "sender": _user(event)}


def pull_request(event: ForgedEvent) -> dict[str, object]:
    """Return a pull request that was merged, in GitHub's form."""
    sides = {
        side: {"ref": branch, "sha": event.changes[0].new, "repo": _repository(event)}
        for side, branch in (("head", "topic/page"), ("base", "main"))
    }
    request = {"title": event.title, "number": 3, "state": "closed", "merged": True, "user": _user(event), **sides}
    about = {"action": "closed", "number": 3, "pull_request": request}
    return {**about, "repository": _repository(event), "sender": _user(event)}


# -- GitLab ------------------------------------------------------------------------------------------------------------


def _project(event: ForgedEvent) -> dict[str, object]:
    return {
        "id": 15,
        "name": event.name.title(),
        "namespace": event.group.rpartition("/")[2].title(),
        "path_with_namespace": event.repository,
        "default_branch": "main",
        "web_url": f"{ELSEWHERE}/{event.repository}",
        "git_http_url": f"{ELSEWHERE}/{event.repository}.git",
        "git_ssh_url": f"git@elsewhere.invalid:{event.repository}.git",
        "url": f"git@elsewhere.invalid:{event.repository}.git",
        "homepage": f"{ELSEWHERE}/{event.repository}",
    }


def gitlab_push(event: ForgedEvent) -> dict[str, object]:
    """Return GitLab's `push` or `tag_push`: the last 20 commits, oldest first, and their total."""
    change = event.changes[0]
    gone = change.new == ZERO
    kind = "tag_push" if change.kind == "tag" else "push"
    return {
        "object_kind": kind,
        "event_name": kind,
        "before": change.old,
        "after": change.new,
        "ref": change.ref,
        "checkout_sha": None if gone else event.checkout or change.new,
        "message": "Release\n" if kind == "tag_push" else None,
        "user_id": 7,
        "user_name": event.pusher.title(),
        "user_username": event.pusher,
        "user_email": "",
        "project_id": 15,
        "project": _project(event),
        "commits": [] if gone else [_commit(c, event) for c in event.commits[-20:]],
        "total_commits_count": 0 if gone else event.total,
        "repository": {"name": event.name.title(), "url": f"git@elsewhere.invalid:{event.repository}.git"},
    }


def gitlab_update(event: ForgedEvent) -> dict[str, object]:
    """Return the system hook `repository_update`: all refs of a push, no commits."""
    return {
        "event_name": "repository_update",
        "user_id": 7,
        "user_name": event.pusher,
        "user_email": "ada@example.org",
        "project_id": 15,
        "project": _project(event),
        "changes": [{"before": c.old, "after": c.new, "ref": c.ref} for c in event.changes],
        "refs": sorted({c.ref for c in event.changes}),
    }


def gitlab_merge(event: ForgedEvent) -> dict[str, object]:
    """Return a merge request that was merged."""
    attributes = {
        "iid": 3,
        "title": event.title,
        "state": "merged",
        "action": "merge",
        "source_branch": "topic/page",
        "target_branch": "main",
        "source": _project(event),
        "target": _project(event),
    }
    who = {"name": event.pusher.title(), "username": event.pusher}
    return {"object_kind": "merge_request", "user": who, "project": _project(event), "object_attributes": attributes}


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


Build: TypeAlias = Callable[[ForgedEvent], "dict[str, object]"]
_GITHUB: Final[Mapping[str, Build]] = {
    "push": github_push,
    "create": github_create,
    "delete": ref_delete,
    "ping": github_ping,
    "merge": pull_request,
}
_GITEA: Final[Mapping[str, Build]] = {
    "push": gitea_push,
    "create": gitea_create,
    "delete": ref_delete,
    "merge": pull_request,
}
#: forge -> event, in words that are the same for all forges -> what builds the payload.
PAYLOADS: Final[Mapping[str, Mapping[str, Build]]] = {
    "github": _GITHUB,
    "gitlab": {"push": gitlab_push, "update": gitlab_update, "merge": gitlab_merge},
    "gitea": _GITEA,
    "forgejo": _GITEA,
    "gogs": _GITEA,
    "bitbucket": {"push": bitbucket_push, "merge": bitbucket_merge},
    "bitbucket-dc": {"push": bitbucket_dc_push, "merge": bitbucket_dc_merge, "ping": lambda _event: {"test": True}},
    "azure": {"push": azure_push, "merge": azure_merge},
    "generic": {"push": generic_push},
}

__all__ = ["ELSEWHERE", "PAYLOADS", "ZERO", "ForgedChange", "ForgedCommit", "ForgedEvent"]
