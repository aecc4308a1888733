"""Where a hook runs and for whom: the repository's name, the pusher, the source of its messages.

Pure but for `uname` and the user database.

The variables are those that gitolite, Gitea and Forgejo, GitLab and a web server set for the hooks they run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from deploykit.errors import HookError, InvalidName
from deploykit.messages.base import one_line
from deploykit.names import RepoName, parse_repo_name
from deploykit.settings.hooks import HookSettings

_PUSHERS = ("GL_USER", "GITEA_PUSHER_NAME", "GL_USERNAME", "GL_ID", "REMOTE_USER")
_SOURCE_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def repository_name(path: str, settings: HookSettings, environ: Mapping[str, str]) -> RepoName:
    """Return a repository's name: from the settings, relative to their `root`, from the forge, or of its directory.

    `.git` is dropped at the end, directories in between are kept.

    Raises:
        HookError: the name is not one that messages can carry.
    """
    if settings.repo is not None:
        return settings.repo
    try:
        return parse_repo_name(_name(path, settings.root, environ))
    except InvalidName as error:
        raise HookError(error.problem, 'name it in the settings: repo = "NAME"') from error


def _name(path: str, root: str, environ: Mapping[str, str]) -> str:
    path = path.removesuffix("/.git").removesuffix(".git")
    root = os.path.realpath(root) if root else ""
    if root and path.startswith(f"{root}/"):
        return path[len(root) + 1 :]
    if environ.get("GITEA_REPO_USER_NAME") and environ.get("GITEA_REPO_NAME"):
        return f"{environ['GITEA_REPO_USER_NAME']}/{environ['GITEA_REPO_NAME']}".removesuffix(".git")
    name = environ.get("GL_PROJECT_PATH") or environ.get("GL_REPO")
    return name.removesuffix(".git") if name else path.rpartition("/")[2]


def pusher(environ: Mapping[str, str]) -> str:
    """Return who pushed: the forge's name for them, else the user of this process, whom sshd let in."""
    name = next((environ[variable] for variable in _PUSHERS if environ.get(variable)), "")
    return one_line(name.encode("utf-8", "replace").decode(), 255) or user()


def user() -> str:
    """Return the user this process runs as, from the system's list: an environment variable could hold anything."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def host_source(kind: str) -> str:
    """Return the source of our messages, `git/HOST`, in characters that a URI reference allows."""
    host = "".join(c if c in _SOURCE_SAFE else "-" for c in os.uname().nodename)
    return f"{kind}/{host[:200]}" if host else kind
