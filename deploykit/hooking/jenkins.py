"""A Jenkins build to a message, from the variables that Jenkins gives it (its own, the git plugin's, multibranch's).

Rules:

* A build that deploykit asked for carries `DEPLOYKIT_CORRELATION_ID` as a parameter, and may carry `DEPLOYKIT_REPO`,
  `DEPLOYKIT_REF` and `DEPLOYKIT_PROJECT`. They win over Jenkins' own variables, which name things differently.
* Whoever may start the build sets its parameters. They are only passed on, each parsed as what it must be.
* The commit is what Jenkins reports (`GIT_COMMIT`): the branch may have moved since the build was asked for, and a
  result that opens a gate must be of the commit that was built.
* `DEPLOYKIT_COMMIT` counts only where Jenkins reports no commit, and never in a signed result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar, cast, get_args

from deploykit.errors import HookError, InvalidName, MessageError
from deploykit.hooking.console import print_line
from deploykit.hooking.enqueue import enqueue
from deploykit.hooking.options import parse_words
from deploykit.hooking.origin import host_source
from deploykit.messages.base import new_id, one_line
from deploykit.messages.build import BuildFinished, BuildOutcome, BuildStarted
from deploykit.names import ObjectId, RefName, RepoName, parse_object_id, parse_ref_name, parse_repo_name
from deploykit.settings.hooks import HookSettings, load_hook_settings
from deploykit.wire.field_types import identifier

T = TypeVar("T")

_USAGE: Final = "jenkins-notify [--config FILE] begin|success|failure|unstable|aborted"
_SVN_LAYOUT: Final = ("trunk", "branches", "tags")
#: Other words for an outcome: the original helper's options, and those of `currentBuild.currentResult`.
_ALSO: Final = {"-b": "begin", "-p": "success", "-c": "failure", "not_built": "aborted"}


def main(argv: Sequence[str], stdin: bytes, strict: list[bool]) -> int:
    """Queue the event of one build and return the exit code; see `deploykit.hooking.run`."""
    if "--help" in argv or "-h" in argv:
        print_line(f"usage: {_USAGE}")
        return 0
    words = parse_words(argv, _USAGE)
    settings = load_hook_settings("", system_file=words.config)
    strict[0] = settings.strict
    if len(words.rest) != 1:
        raise HookError("expected one word: begin, or how the build ended", f"usage: {_USAGE}")
    message = message_of(words.rest[0], settings, os.environ)
    print_line(str(enqueue([message], settings, os.environ, sign=isinstance(message, BuildFinished))))
    return 0


def message_of(word: str, settings: HookSettings, environ: Mapping[str, str]) -> BuildStarted | BuildFinished:
    """Return the event of one build.

    Raises:
        HookError: no such outcome, or this is not a Jenkins build.
    """
    outcome = _ALSO.get(word.lower(), word.lower())
    if outcome != "begin" and outcome not in get_args(BuildOutcome):
        raise HookError(f"no such outcome: {word!a}", f"usage: {_USAGE}")
    job = one_line(environ.get("JOB_NAME", ""))
    if not job:
        raise HookError("JOB_NAME is not set", "run this from a Jenkins build")
    own = new_id()
    number = environ.get("BUILD_NUMBER", "")
    common = {
        "id": own,
        "correlation_id": _parsed(identifier, environ.get("DEPLOYKIT_CORRELATION_ID", "")) or own,
        "source": host_source("jenkins"),
        "job": job,
        "number": int(number) if number.isascii() and number.isdecimal() and len(number) < 16 else 0,
        "url": one_line(environ.get("BUILD_URL") or environ.get("JOB_URL", ""), 2000),
        "repo": repo_of(settings, environ),
        "ref": ref_of(environ),
        "commit": commit_of(environ, signed=bool(settings.signing_key)),
        "project": one_line(environ.get("DEPLOYKIT_PROJECT", "")),
    }
    if outcome == "begin":
        return BuildStarted(**common)  # type: ignore[arg-type]  # each is of its field's type
    return BuildFinished(outcome=cast(BuildOutcome, outcome), **common)  # type: ignore[arg-type]  # likewise


def repo_of(settings: HookSettings, environ: Mapping[str, str]) -> RepoName | None:
    """Return the repository that was built: from our parameter, the settings, the remote's name, or the URL.

    The original named a remote after its repository (`GIT_BRANCH=shop/main`).
    """
    requested = _parsed(parse_repo_name, environ.get("DEPLOYKIT_REPO", ""))
    if requested or settings.repo:
        return requested or settings.repo
    remote, slash, _ = environ.get("GIT_BRANCH", "").partition("/")
    if slash and not environ.get("BRANCH_NAME") and remote not in ("origin", "refs", "remotes", "tags"):
        return _parsed(parse_repo_name, remote)
    url = environ.get("GIT_URL") or environ.get("GIT_URL_1", "")
    if not url:
        url = (environ.get("SVN_URL") or environ.get("SVN_URL_1", "")) + "/"
        for part in _SVN_LAYOUT:
            url = url.partition(f"/{part}/")[0]
    path = url.rstrip("/").removesuffix(".git").replace(":", "/")
    return _parsed(parse_repo_name, path.rpartition("/")[2])


def ref_of(environ: Mapping[str, str]) -> RefName | None:
    """Return the ref that was built: from our parameter, a multibranch job, or the git plugin."""
    requested = _parsed(parse_ref_name, environ.get("DEPLOYKIT_REF", ""))
    if requested:
        return requested
    if environ.get("TAG_NAME"):
        return _parsed(parse_ref_name, f"refs/tags/{environ['TAG_NAME']}")
    if environ.get("BRANCH_NAME") and not environ.get("CHANGE_ID"):
        return _parsed(parse_ref_name, f"refs/heads/{environ['BRANCH_NAME']}")
    branch = environ.get("GIT_BRANCH", "").removeprefix("refs/remotes/").removeprefix("remotes/")
    if branch.startswith(("refs/heads/", "refs/tags/")):
        return _parsed(parse_ref_name, branch)
    remote, slash, name = branch.partition("/")
    name = name if slash and remote != "tags" else branch  # `origin/main`, `tags/v1`, or a bare `main`
    if not name or name in ("detached", "HEAD"):
        return None
    return _parsed(parse_ref_name, f"refs/{name}" if name.startswith("tags/") else f"refs/heads/{name}")


def commit_of(environ: Mapping[str, str], *, signed: bool = False) -> ObjectId | None:
    """Return the commit that Jenkins built; else, unless the message will be signed, the one that was asked for."""
    built = _parsed(parse_object_id, environ.get("GIT_COMMIT", "").lower())
    return built or (None if signed else _parsed(parse_object_id, environ.get("DEPLOYKIT_COMMIT", "").lower()))


def _parsed(parse: Callable[[object], T], text: str) -> T | None:
    try:
        return parse(text) if text else None
    except (InvalidName, MessageError):
        return None  # Jenkins' own variables may hold anything; the event is sent without this one
