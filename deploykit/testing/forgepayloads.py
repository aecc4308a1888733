"""Payloads as forges build them, of made-up projects: the JSON behind `deploykit.testing.forges.forged`.

Every payload holds what surrounds the fields that a receiver reads, clone URLs that lead elsewhere among it: a receiver
that reads more than it should is then seen to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from deploykit.testing.changespayloads import (
    azure_merge,
    azure_push,
    bitbucket_dc_merge,
    bitbucket_dc_push,
    bitbucket_merge,
    bitbucket_push,
    generic_push,
)
from deploykit.testing.forgedevents import ELSEWHERE, ZERO, ForgedCommit, ForgedEvent


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

__all__ = ["PAYLOADS"]
